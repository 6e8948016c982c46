import BlockExports
import BlockGraph
import Glibc
import IOCore
import ManagedObjects
import NBDServer
import QAPIRuntime
import StorageSchema
import StrataBase
import ToolSupport

/// One life of the server, on the main thread: opens the image, lets clients in until the end, and closes it.
final class ServeRun {
    private static let exportID = "nbd"
    private static let loadingSnapshot = "Failed to load snapshot"

    private let plan: NBDToolPlan
    private let sockets: [Int32]
    private let device: KernelNBDDevice?
    private let context: IOContext
    private let background: Daemonization?
    /// Set by a signal, or when the last client has left.
    private let ending = AsyncCondition(false)
    private var pidFile: PidFile?

    /// - Parameters:
    ///   - sockets: listening ones that the process was started with; none: the plan says where to listen.
    ///   - device: of the kernel's, a client of this server; the plan's address is listened on besides only when it was named.
    init(_ plan: NBDToolPlan, _ sockets: [Int32], _ device: KernelNBDDevice?, on context: IOContext, background: Daemonization?) {
        self.plan = plan
        self.sockets = sockets
        self.device = device
        self.context = context
        self.background = background
    }

    /// Returns when it is over and everything is closed.
    /// - Throws: what was wrong with an option or the image, or what could not be written out at the end.
    func run() async throws(ToolFailure) {
        let ending = ending
        let objects = try UserObjects.make(plan.objects)
        do throws(BlockError) {
            try ProcessSignals.watchTermination(on: context) { _ in ending.update { $0 = true } }
        } catch {
            throw ToolFailure(nil, error)
        }
        let session = ImageSession(context: context, objects: objects)
        var server: NBDServer?
        var threads: [IOContext] = []
        do throws(ToolFailure) {
            let security = try security(in: objects)
            let node = try await open(in: session)
            threads = try startThreads()
            server = try await serve(node, of: session, security, on: threads)
            if let device, let server { try await connect(device, to: server) }
            try writePIDFile()
            background?.announceReady()
            if plan.isVerbose {
                if case .connect(let path) = plan.action { StandardStreams.printError("NBD device \(path) is now connected to \(plan.image ?? "")\n") }
                if listensOnPlan { StandardStreams.printError("NBD server listening on \(plan.address.hostAddress)\n") }
            }
        } catch {
            await server?.stop()
            do { try await session.close() } catch {}
            throw error
        }
        await ending.wait { $0 ? () : nil }
        // When it was the device that has ended, it is disconnected already, and the kernel says so.
        do throws(BlockError) { try device?.disconnect() } catch {}
        await server?.stop()
        var failure: BlockError?
        do throws(BlockError) { try await session.close() } catch { failure = error }
        for thread in threads { thread.stop() }
        for thread in threads { thread.join() }
        pidFile?.remove()
        if let failure { throw ToolFailure("closing the image", failure) }
    }

    // MARK: The image

    /// - Returns: the name of the node to export.
    private func open(in session: ImageSession) async throws(ToolFailure) -> String {
        let name = plan.image ?? ""
        do throws(BlockError) {
            var reference = plan.isOptions ? try ImageReference(imageOptions: name) : try ImageReference(named: name, format: plan.format)
            if let detectZeroes = plan.detectZeroes { reference.options["detect-zeroes"] = .string(detectZeroes) }
            let image =
                plan.isSnapshot && !plan.settings.isReadOnly
                ? try await TemporaryOverlay.open(over: reference, plan.settings, in: session) : try await session.open(reference, plan.settings)
            image.warnOfGuess()
            await session.graph.release(image.backend)
            try await loadSnapshot(of: image.node.name, in: session.graph)
            return try await withoutBeginning(of: image.node, in: session.graph)
        } catch {
            throw error.steps.first == Self.loadingSnapshot ? ToolFailure(nil, error) : ToolFailure("Failed to blk_new_open '\(name)'", error)
        }
    }

    private func loadSnapshot(of node: String, in graph: BlockGraph) async throws(BlockError) {
        for (index, selector) in plan.snapshots.enumerated() {
            do throws(BlockError) {
                return try await graph.loadSnapshot(on: node, selector)
            } catch where error.code == .notFound && index + 1 < plan.snapshots.count {
                continue  // it was not an id; perhaps a name
            } catch where error.code == .notFound {
                throw BlockError(.notFound, "Can't find snapshot").during(Self.loadingSnapshot)
            } catch {
                throw error.during(Self.loadingSnapshot)
            }
        }
    }

    private func withoutBeginning(of node: BlockNode, in graph: BlockGraph) async throws(BlockError) -> String {
        if plan.offset == 0 { return node.name }
        let options = BlockdevOptions(.raw(BlockdevOptionsRaw(file: .reference(node.name), offset: plan.offset)), readOnly: plan.settings.isReadOnly)
        return try await graph.add(options).name
    }

    // MARK: The server

    private var listensOnPlan: Bool { sockets.isEmpty && (device == nil || plan.namesAddress) }

    private func connect(_ device: KernelNBDDevice, to server: NBDServer) async throws(ToolFailure) {
        let ending = ending
        do throws(BlockError) {
            let (ours, theirs) = try ConnectedSocket.pair()
            await server.adopt(ours)
            try await device.connect(theirs, export: plan.exportName) { ending.update { $0 = true } }
        } catch {
            throw ToolFailure(nil, error)
        }
    }

    /// One thread serves one client; several are spread over the processors.
    private func startThreads() throws(ToolFailure) -> [IOContext] {
        if plan.shared == 1 { return [] }
        var threads: [IOContext] = []
        do throws(BlockError) {
            for number in 0..<min(HostProcessors.count, plan.shared ?? .max) { threads.append(try IOContext.startThread(name: "client-\(number)")) }
        } catch {
            throw ToolFailure(nil, error)
        }
        return threads
    }

    private func security(in objects: ObjectRegistry) throws(ToolFailure) -> ServerSecurity? {
        guard let credentials = plan.tlsCreds else { return nil }
        do throws(BlockError) {
            return try ServerSecurity(credentials: credentials, authorization: plan.tlsAuthz, in: objects, by: "the NBD server")
        } catch {
            throw ToolFailure("Failed to get TLS creds", error)
        }
    }

    private func serve(_ node: String, of session: ImageSession, _ security: ServerSecurity?, on threads: [IOContext]) async throws(ToolFailure) -> NBDServer {
        do throws(BlockError) {
            let addresses = listensOnPlan ? [plan.address.hostAddress] : sockets.map { HostAddress.descriptor($0) }
            let configuration = NBDServer.Configuration(
                addresses: addresses, handshakeLimit: plan.handshakeLimit, maximumConnections: plan.shared, security: security)
            let server = NBDServer(configuration, context: context, registry: BlockExportRegistry())
            let own = BlockExportOptionsNbd(
                name: plan.exportName, description: plan.description,
                bitmaps: plan.bitmaps.isEmpty ? nil : plan.bitmaps.map { .local($0) }, allocationDepth: plan.hasAllocationDepth)
            let export = try await server.addExport(
                BlockExportOptions(
                    .nbd(own), id: Self.exportID, nodeName: node, writable: !plan.settings.isReadOnly, writethrough: !plan.settings.cache.writeback),
                graph: session.graph, contexts: threads.isEmpty ? [context] : threads, allowsSeveralConnections: plan.shared != 1)
            if !plan.isPersistent {
                let ending = ending
                export.whenIdle { ending.update { $0 = true } }
            }
            do throws(BlockError) {
                try await server.start()
            } catch {
                await server.stop()
                throw error
            }
            return server
        } catch {
            throw ToolFailure(nil, error)
        }
    }

    private func writePIDFile() throws(ToolFailure) {
        guard let path = plan.pidFile else { return }
        do throws(BlockError) { pidFile = try PidFile(creating: path) } catch { throw ToolFailure(nil, error) }
    }
}
