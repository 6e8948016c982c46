import BlockGraph
import IOCore
import StorageCommands

/// An open disk: the content of a node of a storage's graph, by position.
///
/// Positions and counts are bytes and need no alignment. Requests may overlap in time; a read that runs beside a write to the same place may
/// see either. Written data is safe from a crash after `flush`.
public final class Disk: Sendable {
    /// Kept alive: a disk is of no use without it.
    private let storage: Storage
    private let port: DiskPort
    /// The name of the node in commands.
    public let nodeName: String

    init(_ backend: BlockBackend, in storage: Storage) {
        self.storage = storage
        port = DiskPort(backend, context: storage.core.context)
        nodeName = backend.node.name
    }

    /// The size in bytes.
    public var length: Int { port.backend.length }
    /// Whether writing is out of the question.
    public var isReadOnly: Bool { port.backend.node.isReadOnly }

    /// Reads.
    /// - Throws: `.invalidArgument` when the range is not inside the disk; else what the image or the system reports.
    public func read(at offset: Int, count: Int) async throws(BlockError) -> [UInt8] {
        try await storage.core.use { () async throws(BlockError) in try await port.read(at: offset, count: count) }
    }

    /// Writes. The disk does not grow: use `resize`.
    public func write(_ bytes: [UInt8], at offset: Int) async throws(BlockError) {
        try await storage.core.use { () async throws(BlockError) in try await port.write(bytes, at: offset) }
    }

    /// Makes a range read as zeroes, without moving data where the image can.
    /// - Parameter mayUnmap: whether the space may be given back too.
    public func writeZeroes(at offset: Int, count: Int, mayUnmap: Bool = true) async throws(BlockError) {
        try await storage.core.use { () async throws(BlockError) in try await port.writeZeroes(at: offset, count: count, mayUnmap: mayUnmap) }
    }

    /// Makes everything durable whose write was over before.
    public func flush() async throws(BlockError) {
        try await storage.core.use { () async throws(BlockError) in try await port.flush() }
    }

    /// Changes the size. What is added reads as zeroes.
    public func resize(to byteCount: Int) async throws(BlockError) {
        try await storage.core.use { () async throws(BlockError) in try await storage.core.resize(nodeName, to: byteCount) }
    }

    /// What is known about the beginning of a range, looking through backing files.
    /// - Parameter count: at least 1.
    /// - Returns: an extent of at least one byte and at most `count`.
    public func blockStatus(at offset: Int, count: Int) async throws(BlockError) -> DiskExtent {
        try await storage.core.use { () async throws(BlockError) in try await port.blockStatus(at: offset, count: count) }
    }

    /// What the image says about itself.
    public func information() async throws(BlockError) -> ImageInfo {
        try await storage.core.use { () async throws(BlockError) in try await NodeDescriber.imageInfo(port.backend.node) }
    }

    /// Closes the disk and, unless others use them, the nodes below it. Its exports have to be gone.
    public func close() async throws(BlockError) {
        try await storage.core.use { () async throws(BlockError) in try await storage.core.close(port.backend) }
    }
}
