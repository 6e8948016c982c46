package import StorageSchema
package import StrataBase

/// Can change its options while it is open (blockdev-reopen).
///
/// The graph compares the new options with those that the node was opened with, follows changes of children by itself, and then calls
/// `stageReopen`, `prepareReopen` and `commitReopen` in this order; `abortReopen` instead, when anything fails anywhere in the transaction.
/// From `stageReopen` on, `permissions`, `preparePermissions` and `obstacleToWriting` answer for the new options; requests go on with the old
/// ones. No request runs on the node from before `prepareReopen` until after `commitReopen` or `abortReopen`.
///
/// A driver whose own options cannot change has nothing to implement: conforming lets the options change that every node has.
package protocol Reopening: BlockDriver {
    /// The driver's own options, as in QAPI, that may change. All others are refused by name. Options for children are not among them.
    static var changeableOptions: Set<String> { get }
    /// Whether the image names a backing file, so that the user has to say which one is meant.
    var namesBackingFile: Bool { get }
    /// Takes the new options in. What is wrong with them alone is found here. Changes nothing that a request sees.
    func stageReopen(_ request: ReopenRequest) throws(BlockError)
    /// Does what takes time or can fail: writes metadata out before the node becomes read-only, looks at a new child.
    func prepareReopen() async throws(BlockError)
    /// Puts the new options into force. Cannot fail. Edges lead to their new nodes already.
    func commitReopen() async
    /// Forgets what was staged and prepared. May be called when nothing was.
    func abortReopen() async
}

extension Reopening {
    package static var changeableOptions: Set<String> { [] }
    package var namesBackingFile: Bool { false }
    package func stageReopen(_ request: ReopenRequest) throws(BlockError) {}
    package func prepareReopen() async throws(BlockError) {}
    package func commitReopen() async {}
    package func abortReopen() async {}
}

/// What a node is to become.
package struct ReopenRequest: Sendable {
    /// All options, as a user gave them; what is not there has its default.
    package let options: BlockdevOptions
    /// The options that every node has, with what the node inherits and what auto-read-only comes to.
    package let nodeOptions: NodeOptions
    /// For children whose edges will lead to other nodes: an edge to look at the new node through, by the child's name.
    package let replaced: [String: BlockChild]
}
