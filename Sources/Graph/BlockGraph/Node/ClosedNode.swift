import IOCore
import StorageSchema
import StrataBase

extension BlockNode {
    /// Where the edges of closed nodes lead.
    private static let closed = BlockNode(name: "#closed", driver: ClosedDriver(), options: NodeOptions())

    /// Lets go of the nodes below. For a node that is closed and has left the graph.
    ///
    /// Without this the end of a node would bring about the end of its children inside its own, and so on down a chain of thousands, which no
    /// thread's stack has room for; whoever holds the last reference to the first one cannot know.
    func letGoOfChildren() {
        for child in children { child.retarget(to: Self.closed) }
    }
}

/// Holds nothing and does nothing.
private final class ClosedDriver: BlockDriver {
    static let formatName = "closed"
    static let kind = DriverKind.protocol
    private static let refusal = BlockError(.io, "The node is closed")

    static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver { throw refusal }

    var length: Int { 0 }
    func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) { throw Self.refusal }
    func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) { throw Self.refusal }
}
