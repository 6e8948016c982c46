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
    private let life = AsyncCondition(Life())
    /// The name of the node in commands.
    public let nodeName: String

    init(_ backend: BlockBackend, in storage: Storage) {
        self.storage = storage
        port = DiskPort(backend, context: storage.core.context)
        nodeName = backend.node.name
    }

    /// The size in bytes; of a disk that is closed the last one.
    public var length: Int { life.withLock { $0.lastLength } ?? port.backend.length }
    /// Whether writing is out of the question.
    public var isReadOnly: Bool { port.backend.node.isReadOnly }

    private struct Life: Sendable {
        /// Calls that are under way.
        var callCount = 0
        /// The size that it had when it was closed; nil while it is open.
        var lastLength: Int?
    }

    private func use<Result>(_ body: () async throws(BlockError) -> Result) async throws(BlockError) -> Result {
        let isOpen = life.withLock { life in
            if life.lastLength == nil { life.callCount += 1 }
            return life.lastLength == nil
        }
        guard isOpen else { throw isClosed }
        defer { life.update { $0.callCount -= 1 } }
        return try await storage.core.use(body)
    }

    private var isClosed: BlockError { BlockError(.invalidArgument, "Disk '\(nodeName)' is closed") }

    /// Reads.
    /// - Throws: `.invalidArgument` when the range is not inside the disk; else what the image or the system reports.
    public func read(at offset: Int, count: Int) async throws(BlockError) -> [UInt8] {
        try await use { () async throws(BlockError) in try await port.read(at: offset, count: count) }
    }

    /// Writes. The disk does not grow: use `resize`.
    public func write(_ bytes: [UInt8], at offset: Int) async throws(BlockError) {
        try await use { () async throws(BlockError) in try await port.write(bytes, at: offset) }
    }

    /// Makes a range read as zeroes, without moving data where the image can.
    /// - Parameter mayUnmap: whether the space may be given back too.
    public func writeZeroes(at offset: Int, count: Int, mayUnmap: Bool = true) async throws(BlockError) {
        try await use { () async throws(BlockError) in try await port.writeZeroes(at: offset, count: count, mayUnmap: mayUnmap) }
    }

    /// Makes everything durable whose write was over before.
    public func flush() async throws(BlockError) {
        try await use { () async throws(BlockError) in try await port.flush() }
    }

    /// Changes the size. What is added reads as zeroes.
    public func resize(to byteCount: Int) async throws(BlockError) {
        try await use { () async throws(BlockError) in try await storage.core.resize(nodeName, to: byteCount) }
    }

    /// What is known about the beginning of a range, looking through backing files.
    /// - Parameter count: at least 1.
    /// - Returns: an extent of at least one byte and at most `count`.
    public func blockStatus(at offset: Int, count: Int) async throws(BlockError) -> DiskExtent {
        try await use { () async throws(BlockError) in try await port.blockStatus(at: offset, count: count) }
    }

    /// What the image says about itself.
    public func information() async throws(BlockError) -> ImageInfo {
        try await use { () async throws(BlockError) in try await NodeDescriber.imageInfo(port.backend.node) }
    }

    /// Closes the disk when the requests that have begun are over, and, unless others use them, the nodes below it. Its exports have to be gone.
    /// - Throws: while somebody else uses it; it then goes on as before.
    public func close() async throws(BlockError) {
        let length = length
        let isFirst = life.withLock { life in
            defer { life.lastLength = life.lastLength ?? length }
            return life.lastLength == nil
        }
        guard isFirst else { throw isClosed }
        await life.wait { $0.callCount == 0 ? () : nil }
        do throws(BlockError) {
            try await storage.core.use { () async throws(BlockError) in try await storage.core.close(port.backend) }
        } catch {
            life.update { $0.lastLength = nil }
            throw error
        }
    }
}
