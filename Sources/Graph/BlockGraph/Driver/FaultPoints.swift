package import StorageSchema

/// Is told where the request of a node above has got to, so that it can make what follows fail at that very point (blkdebug).
///
/// Only the parent's own child is told: a filter in between keeps the points to itself. Such a driver answers no request at once (`tryRead`,
/// `tryWrite`), and its parents do not either (`BlockChild.observesFaultPoints`): a point that is passed once must be told once.
package protocol FaultObserving: BlockDriver {
    /// Any thread; must not wait.
    func reached(_ point: BlkdebugEvent)
}

extension BlockChild {
    /// Whether the node below wants to know of fault points. Where it does, the `try` forms of requests have to return false.
    package var observesFaultPoints: Bool { withNode { $0.faultObserving != nil } }

    /// Tells the node below that a request has got to `point`. One load and one branch unless it listens.
    package func reached(_ point: BlkdebugEvent) {
        withNode { node in node.faultObserving?.reached(point) }
    }
}
