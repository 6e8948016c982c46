import IOCore

/// Requests of one direction that wait for their turn: the members of a group take turns, and each member's requests come in their order.
struct ThrottleQueue: Sendable {
    struct Waiter: Sendable {
        let id: UInt64
        let byteCount: Int
        /// Where the request waits.
        let context: IOContext?
    }

    private var lines: [(member: Int, waiters: [Waiter])] = []

    var isEmpty: Bool { lines.isEmpty }
    var count: Int { lines.reduce(0) { $0 + $1.waiters.count } }
    /// The one whose turn it is.
    var first: Waiter? { lines.first?.waiters.first }

    mutating func append(_ waiter: Waiter, of member: Int) {
        if let index = lines.firstIndex(where: { $0.member == member }) {
            lines[index].waiters.append(waiter)
        } else {
            lines.append((member, [waiter]))
        }
    }

    /// Takes out the one whose turn it is; its member goes to the end.
    mutating func takeFirst() -> Waiter? {
        if lines.isEmpty { return nil }
        var line = lines.removeFirst()
        let waiter = line.waiters.removeFirst()
        if !line.waiters.isEmpty { lines.append(line) }
        return waiter
    }

    /// Takes out whatever a member has waiting.
    mutating func takeAll(of member: Int) -> [Waiter] {
        guard let index = lines.firstIndex(where: { $0.member == member }) else { return [] }
        return lines.remove(at: index).waiters
    }
}
