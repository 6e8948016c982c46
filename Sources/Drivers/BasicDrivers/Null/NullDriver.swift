package import BlockGraph
package import IOCore
package import StorageSchema
package import StrataBase
import Synchronization

/// A disk that forgets what is written to it (`driver=null-co`): for measuring everything above it.
///
/// Reads are zeroes. With `read-zeroes=off` they leave the target as it is, which measures a little less of the memory and shows whoever reads what
/// was there before: never export a node like that to somebody else.
package final class NullDriver: BlockDriver, Flushing, ZeroWriting, Discarding, StatusReporting, Reopening {
    package static let formatName = "null-co"
    package static let kind = DriverKind.protocol

    package let length: Int
    private let readsZeroes: Bool
    private let latency: Duration?

    /// Bytes, when the options do not say: a gibibyte.
    package static let defaultSize = 1 << 30

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .nullCo(let own) = options.branch else { throw BlockError(.invalidArgument, "options of another driver were given to 'null-co'") }
        let size = own.size ?? defaultSize
        guard size >= 0 else { throw BlockError(.invalidArgument, "The size \(size) of a null-co node is negative") }
        let nanoseconds = own.latencyNs ?? 0
        return NullDriver(size: size, readsZeroes: own.readZeroes ?? true, latency: nanoseconds == 0 ? nil : .nanoseconds(nanoseconds))
    }

    private init(size: Int, readsZeroes: Bool, latency: Duration?) {
        length = size
        self.readsZeroes = readsZeroes
        self.latency = latency
    }

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
