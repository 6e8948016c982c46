package import StrataBase
import Synchronization

/// What users may do to a node and others may forbid for a while.
package enum BlockedOperation: Sendable, Hashable, CaseIterable {
    case delete, resize, snapshot, changeBackingFile, changeChildren, reopen
    /// Block jobs refuse each other.
    case jobSource, jobTarget, backupTarget, commitTarget

    fileprivate var isForbiddenWhileBacking: Bool {
        switch self {
        case .delete, .resize, .snapshot, .changeBackingFile, .jobTarget: true
        case .changeChildren, .reopen, .jobSource, .backupTarget, .commitTarget: false
        }
    }
}

/// Somebody's word that some operations on a node must wait: a job that uses it, an overlay whose data would change.
package struct OperationBlocker: Sendable {
    package typealias ID = UInt64
    package let id: ID
    package let operations: Set<BlockedOperation>
    /// Follows `Node 'x' is busy: ` in messages.
    package let reason: String
    /// Whoever wants to remove the node hears of this before he hears who uses it.
    let isToldFirst: Bool

    private static let nextID = Atomic<ID>(1)

    package init(_ operations: Set<BlockedOperation>, reason: String, isToldFirst: Bool = false) {
        id = Self.nextID.add(1, ordering: .relaxed).oldValue
        self.operations = operations
        self.reason = reason
        self.isToldFirst = isToldFirst
    }

    /// - Parameter name: the node's.
    func refusal(for name: String) -> BlockError { BlockError(.permissionConflict, "Node '\(name)' is busy: \(reason)") }
}

extension OperationBlocker {
    /// For the nodes that a job works on: everything waits but changes of options.
    package static func job(reason: String, isToldFirst: Bool = false) -> OperationBlocker {
        OperationBlocker(Set(BlockedOperation.allCases).subtracting([.reopen]), reason: reason, isToldFirst: isToldFirst)
    }
}

extension GraphState {
    /// - Throws: `.permissionConflict` with the first reason that forbids `operation` on the node.
    package func checkNotBlocked(_ operation: BlockedOperation, on name: String) throws(BlockError) {
        guard let record = nodes[name] else { return }
        if let blocker = record.blockers.first(where: { $0.operations.contains(operation) }) { throw blocker.refusal(for: name) }
        // The data of a backing file shows through in the overlay, so what would change it is done through the overlay.
        guard operation.isForbiddenWhileBacking else { return }
        for id in record.parents.reversed() {
            guard let edge = edges[id], edge.child.role.contains(.copyOnWrite), case .node(let overlay) = edge.owner else { continue }
            throw BlockError(
                .permissionConflict, "Node '\(name)' is busy: node is used as backing hd of '\(overlay)'",
                hint: "Name the top of the chain, or detach '\(name)' from '\(overlay)' first.")
        }
    }
}
