import Synchronization

/// An offset of a node that is reported when the first write goes beyond it, and then forgotten: thin disks are grown so before they are full.
final class WriteThreshold: Sendable {
    private struct State: Sendable {
        var bytes: UInt64 = 0
        var report: (@Sendable (_ excess: UInt64, _ threshold: UInt64) -> Void)?
    }

    private let state = Mutex(State())

    /// 0 when there is none.
    var bytes: UInt64 { state.withLock { $0.bytes } }

    func set(_ bytes: UInt64, _ report: @escaping @Sendable (_ excess: UInt64, _ threshold: UInt64) -> Void) {
        state.withLock { $0 = bytes == 0 ? State() : State(bytes: bytes, report: report) }
    }

    /// To be called for every write. Of several that cross the threshold at once, one reports.
    func note(writeUpTo end: Int) {
        let crossed = state.withLock { state -> State? in
            guard state.bytes > 0, UInt64(max(end, 0)) > state.bytes else { return nil }
            defer { state = State() }
            return state
        }
        if let crossed { crossed.report?(UInt64(end) - crossed.bytes, crossed.bytes) }
    }
}
