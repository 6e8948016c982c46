import IOCore
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

/// Has any number of children of one kind, which users add and take away by x-blockdev-change: a quorum.
package protocol MemberHolding: ChildChanging {
    /// The name and role that one more child gets.
    /// - Throws: why there cannot be one more.
    func newMember() throws(BlockError) -> (name: String, role: ChildRole)
    /// - Throws: why that child must stay.
    func checkRemoval(ofMember name: String) throws(BlockError)
}

/// Stores the name of its backing file in its image.
package protocol BackingFileNaming: BlockDriver {
    /// Writes the name into the image; the backing child stays. No guest request runs, and the image may be written.
    /// - Parameter file: nil for an image that has no backing file from then on.
    func changeBackingFile(to file: String?, format: String?) async throws(BlockError)
}

/// Where a driver keeps a child that may come and go: while no request runs on the node (Docs/Concurrency.md).
package final class ChildSlot: Sendable {
    private final class Content: Sendable {
        let child: BlockChild?
        init(_ child: BlockChild?) { self.child = child }
    }
    private let content: QuiescentReference<Content>

    package init(_ child: BlockChild?) { content = QuiescentReference(Content(child)) }

    package var child: BlockChild? { content.borrow { $0.child } }
    package var isEmpty: Bool { content.borrow { $0.child == nil } }
    /// A look at the child that keeps nothing of it, as every synchronous request takes. `body` gets nil when there is none.
    @inline(__always)
    package func withChild<R>(_ body: (BlockChild?) -> R) -> R { content.borrow { body($0.child) } }

    /// To be called from `ChildChanging.adopt`.
    package func set(_ child: BlockChild?) { content.replace(by: Content(child)) }
}
