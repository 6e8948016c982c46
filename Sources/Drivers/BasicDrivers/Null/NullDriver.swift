package import BlockGraph
package import IOCore
package import StorageSchema
package import StrataBase

/// A disk that forgets what is written to it (`driver=null-co`): for measuring everything above it.
///
/// Reads are zeroes. With `read-zeroes=off` they leave the target as it is, which measures a little less of the memory and shows whoever reads what
/// was there before: never export a node like that to somebody else.
package final class NullDriver: NullDisk {
    package static let formatName = "null-co"
    package let settings: NullSettings

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .nullCo(let own) = options.branch else { throw BlockError(.invalidArgument, "options of another driver were given to 'null-co'") }
        return NullDriver(try NullSettings(own))
    }

    private init(_ settings: NullSettings) { self.settings = settings }
}

/// The same under the name of QEMU's second implementation (`driver=null-aio`), whose requests are callbacks instead of coroutines: we have one way
/// of making requests, so that there is no difference here.
package final class NullAIODriver: NullDisk {
    package static let formatName = "null-aio"
    package let settings: NullSettings

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .nullAio(let own) = options.branch else { throw BlockError(.invalidArgument, "options of another driver were given to 'null-aio'") }
        return NullAIODriver(try NullSettings(own))
    }

    private init(_ settings: NullSettings) { self.settings = settings }
}

package struct NullSettings: Sendable {
    /// Bytes.
    package let length: Int
    let readsZeroes: Bool
    let latency: Duration?

    /// Bytes, when the options do not say: a gibibyte.
    package static let defaultSize = 1 << 30

    init(_ own: BlockdevOptionsNull) throws(BlockError) {
        let size = own.size ?? Self.defaultSize
        guard size >= 0 else { throw BlockError(.invalidArgument, "Value '\(size)' is out of range for parameter 'size'") }
        let nanoseconds = own.latencyNs ?? 0
        guard nanoseconds <= Int64.max else { throw BlockError(.invalidArgument, "latency-ns is invalid") }
        length = size
        readsZeroes = own.readZeroes ?? true
        latency = nanoseconds == 0 ? nil : .nanoseconds(Int64(nanoseconds))
    }
}

/// What both drivers are.
package protocol NullDisk: Flushing, ZeroWriting, Discarding, StatusReporting, Reopening {
    var settings: NullSettings { get }
}

extension NullDisk {
    package static var kind: DriverKind { .protocol }

    package var length: Int { settings.length }
    private var readsZeroes: Bool { settings.readsZeroes }
    private var latency: Duration? { settings.latency }

    package func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool {
        if latency != nil { return false }
        if readsZeroes { target.zero() }
        return true
    }

    package func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        await delay()
        if readsZeroes { target.zero() }
    }

    package func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool { latency == nil }
    package func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) { await delay() }
    package func flush() async throws(BlockError) { await delay() }

    package func writeZeroes(_ range: GuestRange, flags: RequestFlags) async throws(BlockError) -> Support {
        await delay()
        return .done
    }

    package func discard(_ range: GuestRange) async throws(BlockError) -> Support { .done }

    package func tryBlockStatus(of range: GuestRange, precise: Bool) -> BlockStatus? {
        BlockStatus(byteCount: range.byteCount, flags: readsZeroes ? [.zero, .allocated, .offsetValid] : [.data, .allocated, .offsetValid], offset: range.start.asHost)
    }

    package func blockStatus(of range: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus {
        BlockStatus(byteCount: range.byteCount, flags: readsZeroes ? [.zero, .allocated] : [.data, .allocated])
    }

    /// What a slow disk would add to a request.
    private func delay() async {
        guard let latency else { return }
        if let context = IOContext.current { await context.sleep(for: latency) } else { try? await Task.sleep(for: latency) }
    }
}
