import BlockGraph
import IOCore
import QMPMonitor
import StorageCommands

/// What is behind a storage, on its I/O thread.
actor StorageCore: ContextActor {
    nonisolated let context: IOContext
    nonisolated let service: StorageService
    private nonisolated let commands: [String: CommandEntry]
    private nonisolated let monitors: QMPServer
    private nonisolated let life = AsyncCondition(Life())

    private struct Life: Sendable {
        var isClosed = false
        /// Calls from outside that are under way: the thread has to outlive them.
        var callCount = 0
    }

    init(context: IOContext, onEvent: @escaping @Sendable (any QAPIEvent) -> Void) {
        self.context = context
        let listeners = EventListeners(onEvent)
        service = StorageService(context: context) { listeners.send($0) }
        let entries = StorageSchemaTable.commands(service)
        commands = Dictionary(entries.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
        monitors = QMPServer(commands: entries, context: context)
        listeners.connect(monitors)
    }

    /// Runs a call from outside, unless the storage is closed.
    nonisolated func use<Result>(_ body: () async throws(BlockError) -> Result) async throws(BlockError) -> Result {
        guard begin() else { throw BlockError(.invalidArgument, "The storage is closed") }
        defer { finish() }
        return try await body()
    }

    /// The same for calls that fail in more ways than one.
    nonisolated func useForCommand<Result>(_ body: () async throws -> Result) async throws -> Result {
        guard begin() else { throw BlockError(.invalidArgument, "The storage is closed") }
        defer { finish() }
        return try await body()
    }

    private nonisolated func begin() -> Bool {
        life.withLock { life in
            if life.isClosed { return false }
            life.callCount += 1
            return true
        }
    }

    private nonisolated func finish() { life.update { $0.callCount -= 1 } }

    // MARK: Disks

    func open(_ options: BlockdevOptions) async throws(BlockError) -> BlockBackend {
        let node = try await service.graph.add(options)
        // Other users of the node are welcome to everything: an embedder decides what it shares.
        let grant = PermissionGrant(used: node.isReadOnly ? .consistentRead : [.consistentRead, .write], shared: .all)
        do throws(BlockError) {
            return try await service.graph.makeBackend(named: "disk '\(node.name)'", on: node.name, grant)
        } catch {
            try await service.graph.remove(nodeNamed: node.name)
            throw error
        }
    }

    func close(_ backend: BlockBackend) async throws(BlockError) { try await service.graph.remove(backend) }

    // MARK: Commands

    func execute(_ command: String, _ arguments: JSONObject) async throws -> JSONValue {
        guard let entry = commands[command] else { throw QMPError("The command \(command) has not been found", class: .commandNotFound) }
        return try await entry.run(arguments)
    }

    func add(_ options: BlockExportOptions) async throws(BlockError) {
        do { try await service.blockExportAdd(options) } catch { throw Self.blockError(error) }
    }

    func stopNBDServer() async throws(BlockError) {
        do { try await service.nbdServerStop() } catch { throw Self.blockError(error) }
    }

    func resize(_ name: String, to byteCount: Int) async throws(BlockError) {
        do { try await service.blockResize(BlockResizeArguments(nodeName: name, size: byteCount)) } catch { throw Self.blockError(error) }
    }

    private static func blockError(_ error: any Error) -> BlockError { error as? BlockError ?? BlockError(QMPError(error)) }

    func startMonitor(_ address: HostAddress) throws(BlockError) { try monitors.listen(on: ListeningSocket(address)) }

    // MARK: The end

    nonisolated func close() async throws(BlockError) {
        let isFirst = life.withLock { life in
            defer { life.isClosed = true }
            return !life.isClosed
        }
        guard isFirst else { throw BlockError(.invalidArgument, "The storage is closed") }
        await life.wait { $0.callCount == 0 ? () : nil }
        let outcome = await shutDown()
        let context = context
        context.stop()
        await BlockingPool.run { context.join() }
        try outcome.get()
    }

    private func shutDown() async -> Result<Void, BlockError> {
        let outcome: Result<Void, BlockError>
        do throws(BlockError) { outcome = .success(try await service.shutDown()) } catch { outcome = .failure(error) }
        await monitors.stop()
        return outcome
    }
}
