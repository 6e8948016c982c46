package import BlockExports
package import BlockGraph
package import CharacterDevices
package import IOCore
package import JobCore
package import ManagedObjects
import NBDServer
package import QAPIRuntime
import StorageSchema
package import StrataBase

/// A storage daemon without a process around it: a graph, I/O threads, exports and an NBD server, changed by the commands of the schema.
///
/// `strata daemon` runs one, embedders run as many as they like. Each command is an extension in a file of its own. All of them run on
/// `context`; those that change servers, exports or objects also take `changes`, so that a change that awaits is over before the next begins.
package actor StorageService: ContextActor {
    package nonisolated let context: IOContext
    package nonisolated let graph: BlockGraph
    package nonisolated let exports: BlockExportRegistry
    package nonisolated let jobs: JobRegistry
    /// What users have made by `object-add`.
    package nonisolated let objects: ObjectRegistry
    /// What monitors talk over.
    package nonisolated let chardevs = ChardevTable()
    /// Which exports run on which I/O threads.
    nonisolated let threads: IOThreadTable
    /// For exports that name no I/O thread and have several clients at a time.
    nonisolated let spareThreads = SpareThreads()
    /// Tells clients of an event, on any thread.
    nonisolated let sendEvent: @Sendable (any QAPIEvent) -> Void
    /// The server that new NBD exports belong to.
    var nbdServer: NBDServer?
    /// Lock order: before the graph's own.
    let changes = AsyncMutex()
    private nonisolated let ending = AsyncCondition(false)
    private var isShuttingDown = false

    /// - Parameters:
    ///   - context: runs the control plane, and the I/O of exports that name no I/O thread, as long as there is one client.
    ///   - onEvent: told of events, on any thread.
    package init(context: IOContext, drivers: DriverRegistry = DriverCatalog.registry, onEvent: @escaping @Sendable (any QAPIEvent) -> Void = { _ in }) {
        self.context = context
        sendEvent = onEvent
        let objects = ObjectRegistry()
        self.objects = objects
        graph = BlockGraph(context: context, drivers: drivers, objects: objects, events: GraphEvents(onEvent))
        jobs = JobRegistry(graph: graph, onEvent: onEvent)
        let threads = IOThreadTable(objects)
        self.threads = threads
        exports = BlockExportRegistry(onDeleted: { id in
            threads.endUse(by: id)
            onEvent(BlockExportDeletedEvent(id: id))
        })
    }

    /// The objects as `qom-list` shows them at this moment.
    nonisolated var objectTree: ObjectTree { ObjectTree(objects: objects.all, chardevs: chardevs.all) }

    // MARK: The end

    /// Asks for an orderly end: what `quit` and a signal do. Returns at once.
    package nonisolated func requestQuit() { ending.update { $0 = true } }

    /// Suspends until somebody has asked for the end.
    package nonisolated func waitForQuit() async { await ending.wait { $0 ? () : nil } }

    /// Commands that would bring something new into being fail from the beginning of the end on.
    func checkNotShuttingDown() throws(BlockError) {
        if isShuttingDown { throw BlockError(.cancelled, "The storage daemon is shutting down") }
    }

    /// Disconnects clients, finishes the requests that have begun, cancels jobs, writes all metadata out and closes every node. Call once, last.
    /// - Throws: the first failure to write something out. Everything is closed nevertheless.
    package func shutDown() async throws(BlockError) {
        isShuttingDown = true
        // Whoever waits for somebody to ask for the end need not wait any longer.
        requestQuit()
        await changes.withLock {
            await nbdServer?.stop()
            nbdServer = nil
            await exports.removeAll()
        }
        await jobs.cancelAll()
        let outcome: Result<Void, BlockError>
        do throws(BlockError) { outcome = .success(try await graph.closeAll()) } catch { outcome = .failure(error) }
        await objects.closeAll()
        await spareThreads.end()
        try outcome.get()
    }
}

extension StorageService: StorageSchemaCommands {}
