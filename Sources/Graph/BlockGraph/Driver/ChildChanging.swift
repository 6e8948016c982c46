package import StrataBase

/// Can gain or lose children while the node lives: a format its backing file, a quorum its members.
///
/// A child that is merely replaced needs nothing of the driver: the edge itself leads to the new node (`BlockChild`).
package protocol ChildChanging: BlockDriver {
    /// Whether the node can have these children, in words for the user if not. Changes nothing; the children's permissions are not granted yet.
    func check(children: [BlockChild]) async throws(BlockError)
    /// From now on these are the children. No request runs on the node; cannot fail.
    func adopt(children: [BlockChild])
}

/// Where a driver keeps a child that may come and go. Reading it costs a load.
package final class ChildSlot: @unchecked Sendable {  // unchecked: `child` changes only while no request runs on the node (Docs/Concurrency.md)
    package private(set) var child: BlockChild?

    package init(_ child: BlockChild?) { self.child = child }

    /// To be called from `ChildChanging.adopt`.
    package func set(_ child: BlockChild?) { self.child = child }
}
