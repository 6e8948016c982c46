import IOCore
package import StrataBase

/// Keeps copying and writing of the same bytes apart: a copy waits for everything that overlaps it, a write for copies only. Writes do not wait for
/// each other.
package final class RangeLocks: Sendable {
    private struct Entry: Sendable {
        let id: UInt64
        let range: GuestRange
        let isCopy: Bool
    }

    private struct State: Sendable {
        var entries: [Entry] = []
        var nextID: UInt64 = 0

        mutating func enter(_ range: GuestRange, isCopy: Bool) -> UInt64? {
            if entries.contains(where: { ($0.isCopy || isCopy) && $0.range.overlaps(range) }) { return nil }
            nextID += 1
            entries.append(Entry(id: nextID, range: range, isCopy: isCopy))
            return nextID
        }
    }

    private let state = AsyncCondition(State())

    package init() {}

    /// Enters at once, or not at all.
    package func tryEnter(_ range: GuestRange, isCopy: Bool) -> UInt64? { state.withLock { $0.enter(range, isCopy: isCopy) } }

    /// Waits until nothing is in the way. Pair with `leave`.
    package func enter(_ range: GuestRange, isCopy: Bool) async -> UInt64 {
        if let entered = tryEnter(range, isCopy: isCopy) { return entered }
        Trace.copyOnReadRangeWaitBegin(offset: range.start.rawValue, bytes: range.byteCount, copies: isCopy)
        defer { Trace.copyOnReadRangeWaitEnd(offset: range.start.rawValue, bytes: range.byteCount, copies: isCopy) }
        return await state.wait { $0.enter(range, isCopy: isCopy) }
    }

    package func leave(_ id: UInt64) { state.update { state in state.entries.removeAll { $0.id == id } } }
}
