import BlockGraph
import IOCore
import StorageCommands

/// Disk images opened in this process, and the services that a storage daemon offers on them.
///
/// A storage is a graph of block nodes with an I/O thread of its own. A process may have several; they know nothing of each other. Every
/// method may be called from any task, and many requests may be under way at once.
///
/// ```swift
/// let storage = try Storage()
/// let disk = try await storage.open("disk.qcow2", format: .qcow2)
/// try await disk.write([1, 2, 3], at: 4096)
/// try await disk.flush()
/// try await storage.close()
/// ```
///
/// Close it at the end: only then is everything written out for certain.
public final class Storage: Sendable {
    let core: StorageCore

    /// - Parameters:
    ///   - name: for lists of threads.
    ///   - onEvent: told of events such as `BlockExportDeletedEvent`, on any thread; it must not wait for the storage.
    /// - Throws: when the system has no thread or no descriptors to give.
    public init(name: String = "strata", onEvent: @escaping @Sendable (any QAPIEvent) -> Void = { _ in }) throws(BlockError) {
        core = StorageCore(context: try IOContext.startThread(name: name), onEvent: onEvent)
    }

    // MARK: Opening

    /// Opens an image in a host file.
    /// - Parameters:
    ///   - path: of the file.
    ///   - format: `.raw` or `.qcow2`. It is never guessed: whoever writes to a raw disk could make it look like any format.
    ///   - isReadOnly: open it for reading only. It then shares the image with other readers.
    ///   - name: the node's name in commands; made up when it is nil.
    /// - Throws: what is wrong with the file or the image.
    public func open(
        _ path: String, format: BlockdevDriver, isReadOnly: Bool = false, name: String? = nil
    ) async throws(BlockError) -> Disk {
        var options = try BlockdevOptions.format(format, over: .definition(BlockdevOptions(.file(BlockdevOptionsFile(filename: path)))))
        options.nodeName = name
        options.readOnly = isReadOnly
        return try await open(options)
    }

    /// Opens a graph of nodes, described as `blockdev-add` describes it.
    public func open(_ options: BlockdevOptions) async throws(BlockError) -> Disk {
        try await core.use { () async throws(BlockError) in try await Disk(core.open(options), in: self) }
    }

    /// Opens a graph of nodes, described in the language of `--blockdev`: JSON, or `driver=qcow2,file.driver=file,file.filename=a.qcow2`.
    public func open(describedBy text: String) async throws(BlockError) -> Disk {
        let options: BlockdevOptions
        do throws(QMPError) {
            let (value, mode) = try KeyValueParser.parseArgument(text, impliedKey: "driver")
            options = try BlockdevOptions(decoding: value, mode: mode)
        } catch {
            throw BlockError(error)
        }
        return try await open(options)
    }

    // MARK: Asking and commanding

    /// Every node of the graph, the newest first.
    /// - Parameter followsBacking: whether each image's backing files are described inside its own description.
    public func nodes(followsBacking: Bool = false) async throws(BlockError) -> [BlockDeviceInfo] {
        try await core.use { () async throws(BlockError) in try await core.service.graph.describeNodes(followsBacking: followsBacking) }
    }

    /// Runs a QMP command, `execute("block-export-add", ["type": "nbd", …])`.
    /// - Returns: what stands behind `return` in QMP's answer.
    /// - Throws: the error with QMP's class and sentence.
    @discardableResult
    public func execute(_ command: String, _ arguments: JSONValue = [:]) async throws(QMPError) -> JSONValue {
        guard let members = arguments.object else { throw QMPError("QMP input member 'arguments' must be an object") }
        do {
            return try await core.useForCommand { try await core.execute(command, members) }
        } catch {
            throw QMPError(error)
        }
    }

    // MARK: The end

    /// Suspends until a client has sent `quit` to a monitor of this storage.
    public func waitForQuit() async { await core.service.waitForQuit() }

    /// Disconnects clients, lets what has begun finish, writes everything out and closes every image. Call it once, last; later calls of
    /// anything else fail.
    /// - Throws: the first failure to write something out. Everything is closed nevertheless.
    public func close() async throws(BlockError) { try await core.close() }
}
