package import IOCore
package import StorageSchema
package import StrataBase

/// Which place in a graph a driver takes.
package enum DriverKind: Sendable, Hashable {
    /// Reaches something outside: a file, a server, memory.
    case `protocol`
    /// Keeps a disk inside another node.
    case format
    /// Shows its child's data unchanged.
    case filter
}

/// Whether a driver did what it was asked, or leaves it to the pipeline to find another way.
package enum Support: Sendable, Hashable { case done, unsupported }

/// A driver of one node. The object is the node's state.
///
/// The graph calls a driver through `BlockChild`, which has checked ranges, alignment and permissions before. All calls may come from several
/// threads at once; a driver guards its own mutable state. Requests come in two forms: the `try` form answers at once or returns false, and then the
/// async form is called, which also produces the error if there is one. Only the async form is cut to `maxTransfer`: a driver with such a limit
/// refuses longer requests in the `try` form. What a driver cannot do it does not conform to (see DriverCapabilities).
package protocol BlockDriver: AnyObject, Sendable {
    /// The name in QAPI and on command lines.
    static var formatName: String { get }
    static var kind: DriverKind { get }
    /// Whether a backing file may stand below.
    static var supportsBacking: Bool { get }
    /// Whether nodes of this driver can never be written to: those with auto-read-only are read-only, and others must say that they are.
    static var isReadOnly: Bool { get }

    /// Opens a node. Children are opened through `opener`. Nothing may be written: permissions are granted only after the whole tree is open.
    static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver

    /// The size in bytes that the node has now.
    var length: Int { get }
    var limits: BlockLimits { get }
    /// The children in the order of their names in messages; the first is the primary one.
    var children: [BlockChild] { get }
    /// The host file that a user would name to open this node, if there is one.
    var filename: String? { get }
    /// Flags of writes that the driver honours itself; the pipeline emulates the others.
    var supportedWriteFlags: RequestFlags { get }

    /// Reads `target.byteCount` bytes without waiting for anything. False: not possible that way.
    func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool
    func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError)
    /// Writes without waiting for anything. False: not done, or not wholly; the caller repeats it with `write`.
    func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool
    func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError)

    /// What this node needs from, and allows others on, a child in `role`, given what its own parents need and allow.
    func permissions(for role: ChildRole, parents: PermissionGrant, isReadOnly: Bool) -> PermissionGrant
    /// Gets ready for its parents' new demands: reopens a file for writing, takes locks. Undone by `abortPermissions`.
    func preparePermissions(_ grant: PermissionGrant) async throws(BlockError)
    /// Puts what was prepared into force. No request runs on the node if `write` or `resize` in the grant's uses changed.
    func commitPermissions() async
    func abortPermissions() async
    /// Why the node could not be written to if somebody asked; nil if it could. Answered without side effects; decides for parents with auto-read-only.
    func obstacleToWriting() async -> BlockError?

    /// Writes out what is buffered and lets go of everything. Called once, when no request is left. Errors have nobody to go to: they are
    /// logged by the graph.
    func close() async throws(BlockError)

    // What the driver can do beyond this: itself, seen as each protocol that it conforms to, else nil. Never written by hand: `DriverAbilities`.
    var asFlushing: (any Flushing)? { get }
    var asZeroWriting: (any ZeroWriting)? { get }
    var asDiscarding: (any Discarding)? { get }
    var asResizing: (any Resizing)? { get }
    var asStatusReporting: (any StatusReporting)? { get }
    var asHostFileBacked: (any HostFileBacked)? { get }
    var asFaultObserving: (any FaultObserving)? { get }
    var asDraining: (any Draining)? { get }
    var asCopyRanging: (any CopyRanging)? { get }
    var asCompressedWriting: (any CompressedWriting)? { get }
    var asChecking: (any Checking)? { get }
    var asSnapshotting: (any Snapshotting)? { get }
    var asImageDescribing: (any ImageDescribing)? { get }
    var asBitmapPersisting: (any BitmapPersisting)? { get }
    var asChildChanging: (any ChildChanging)? { get }
}

extension BlockDriver {
    package static var supportsBacking: Bool { false }
    package static var isReadOnly: Bool { false }
    package var limits: BlockLimits { BlockLimits() }
    package var children: [BlockChild] { [] }
    package var filename: String? { children.first?.node.filename }
    package var supportedWriteFlags: RequestFlags { [] }

    package func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool { false }
    package func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool { false }

    package func permissions(for role: ChildRole, parents: PermissionGrant, isReadOnly: Bool) -> PermissionGrant {
        DefaultPermissions.grant(kind: Self.kind, role: role, parents: parents, isReadOnly: isReadOnly)
    }

    package func preparePermissions(_ grant: PermissionGrant) async throws(BlockError) {}
    package func commitPermissions() async {}
    package func abortPermissions() async {}
    package func obstacleToWriting() async -> BlockError? { nil }
    package func close() async throws(BlockError) {}
}
