import IOCore
package import StrataBase

/// Keeps requests that overlap apart.
///
/// The pipeline needs it for writes on a node whose driver takes only whole units: there a small write reads its surroundings and writes them
/// back, and must not undo a neighbour's write in between. Nodes with a request alignment of 1 never come here. Drivers with several copies of
/// the data need it to keep them alike.
package final class RequestSerializer: Sendable {
    private struct Entry: Sendable {
        let id: UInt64
        let range: GuestRange
    }

    private struct State: Sendable {
        var active: [Entry] = []
        var nextID: UInt64 = 0
    }

    private let state = AsyncCondition(State())

    package init() {}

    /// Waits until no entered request overlaps `range` (already widened to whole units), then enters. Call `leave` with the result.
    package func enter(_ range: GuestRange) async -> UInt64 {
        await state.wait { state in
            if state.active.contains(where: { $0.range.overlaps(range) }) { return nil }
            state.nextID += 1
            state.active.append(Entry(id: state.nextID, range: range))
            return state.nextID
        }
    }

    package func leave(_ id: UInt64) {
        state.update { state in state.active.removeAll { $0.id == id } }
    }
}
