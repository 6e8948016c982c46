package import IOCore
import QAPIRuntime
package import StorageSchema
package import StrataBase
import Synchronization

/// A thread with an event loop, for the I/O of exports and nodes.
///
/// As in QEMU it may be deleted while it is in use: its name goes at once, and the thread ends with the last user.
package final class IOThread: ManagedObject {
    package static let typeName = "iothread"
    package static let parentTypeName = "event-loop-base"
    package static let mayBeRemovedInUse = true
    /// Poll time of a thread for which none was given, in nanoseconds: QEMU's.
    private static let defaultPollTime = 32768
    private static let defaultThreadPoolMaximum = 64

    package let context: IOContext
    private let settings: Mutex<IothreadProperties>
    private let hasEnded = Atomic<Bool>(false)

    /// Starts the thread.
    /// - Parameter properties: `aio-max-batch` is obeyed. The others are advice about how to poll, and how many threads to keep: our loops find out
    ///   from the load by themselves; the numbers are checked and told back, so that scripts that tune work unchanged.
    package init(_ properties: IothreadProperties, id: String) throws(BlockError) {
        do throws(QMPError) { try Self.check(properties) } catch { throw BlockError(error) }
        settings = Mutex(properties)
        context = try IOContext.startThread(name: id)
        context.setMaxBatch(properties.aioMaxBatch ?? 0)
    }

    deinit {
        guard !hasEnded.load(ordering: .acquiring) else { return }
        context.stop()
        Task { [context] in await BlockingPool.run { context.join() } }
    }

    package func close() async {
        guard !hasEnded.exchange(true, ordering: .acquiringAndReleasing) else { return }
        context.stop()
        await BlockingPool.run { [context] in context.join() }
    }

    package static let properties: [ObjectProperty<IOThread>] = [
        property("thread-pool-min", \.threadPoolMin, default: 0),
        property("aio-max-batch", \.aioMaxBatch, default: 0),
        property("thread-pool-max", \.threadPoolMax, default: defaultThreadPoolMaximum),
        property("poll-max-ns", \.pollMaxNs, default: defaultPollTime),
        property("poll-grow", \.pollGrow, default: 0),
        property("poll-shrink", \.pollShrink, default: 0),
    ]

    private static func property(
        _ name: String, _ path: any WritableKeyPath<IothreadProperties, Int?> & Sendable, default value: Int
    ) -> ObjectProperty<IOThread> {
        ObjectProperty(name, type: "int", get: { thread in thread.settings.withLock { $0[keyPath: path] ?? value } }) {
            (thread: IOThread, value: Int) throws(QMPError) in
            try thread.settings.withLock { settings throws(QMPError) in
                var changed = settings
                changed[keyPath: path] = value
                try check(changed)
                settings = changed
                thread.context.setMaxBatch(changed.aioMaxBatch ?? 0)
            }
        }
    }

    private static func check(_ properties: IothreadProperties) throws(QMPError) {
        let values = [
            ("aio-max-batch", properties.aioMaxBatch), ("thread-pool-min", properties.threadPoolMin), ("thread-pool-max", properties.threadPoolMax),
            ("poll-max-ns", properties.pollMaxNs), ("poll-grow", properties.pollGrow), ("poll-shrink", properties.pollShrink),
        ]
        for case (let name, let value?) in values where value < 0 { throw QMPError("\(name) value must be in range [0, \(Int.max)]") }
        let maximum = properties.threadPoolMax ?? defaultThreadPoolMaximum
        if maximum == 0 || properties.threadPoolMin ?? 0 > maximum { throw QMPError("bad thread-pool-min/thread-pool-max values") }
    }
}
