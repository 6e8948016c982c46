import IOCore
import QAPIRuntime
import QMPMonitor
import StorageCommands
import StorageSchema
import StrataBase
import ToolSupport

/// One life of the daemon, on the main thread: signals, the steps of the command line, waiting for the end, and the orderly end.
final class DaemonRun {
    private let plan: DaemonPlan
    private let context: IOContext
    private let background: Daemonization?
    private let service: StorageService
    private let monitors: QMPServer
    private var chardevs: [Chardev] = []
    private var pidFile: PidFile?

    init(_ plan: DaemonPlan, on context: IOContext, background: Daemonization?) {
        self.plan = plan
        self.context = context
        self.background = background
        let events = EventRelay()
        service = StorageService(context: context) { events.send($0) }
        monitors = QMPServer(commands: StorageSchemaTable.commands(service), policy: plan.compat, context: context)
        events.connect(to: monitors)
    }

    /// Returns when somebody has asked for the end and everything is closed.
    /// - Throws: what was wrong with an option, or what could not be written out at the end.
    func run() async throws(ToolFailure) {
        try watchSignals()
        do throws(ToolFailure) {
            for step in plan.steps {
                do throws(QMPError) { try await perform(step.action) } catch { throw ToolFailure("\(step.source): \(error.message)") }
            }
            // Members of sets are duplicates; what they were made of is not needed any more.
            for case .addDescriptor(let passed) in plan.steps.map(\.action) { OwnedDescriptor.closeInherited(passed.descriptor) }
            try writePIDFile()
            background?.announceReady()
        } catch {
            await end()
            throw error
        }
        await service.waitForQuit()
        if let failure = await end() { throw ToolFailure("shutting down", failure) }
    }

    private func watchSignals() throws(ToolFailure) {
        let service = service
        do throws(BlockError) {
            try ProcessSignals.watchTermination(on: context) { _ in service.requestQuit() }
        } catch {
            throw ToolFailure(nil, error)
        }
    }

    private func perform(_ action: DaemonPlan.Action) async throws(QMPError) {
        do {
            switch action {
            case .addDescriptor(let passed): try service.addInherited(descriptor: passed.descriptor, toSet: passed.set, opaque: passed.opaque)
            case .addNode(let options): try await service.blockdevAdd(options)
            case .addExport(let options): try await service.blockExportAdd(options)
            case .startNBDServer(let options): try await service.startNBDServer(options)
            case .addObject(let options): try await service.objectAdd(options)
            case .addChardev(let options): try await addChardev(options)
            case .addMonitor(let options): try addMonitor(options)
            }
        } catch {
            throw QMPError(error)
        }
    }

    private func addChardev(_ options: ChardevOptions) async throws(BlockError) {
        if chardevs.contains(where: { $0.id == options.id }) { throw BlockError(.alreadyExists, "Duplicate ID '\(options.id)' for chardev") }
        if options.kind == .standardStreams, chardevs.contains(where: \.usesStandardStreams) {
            throw BlockError(.permissionConflict, "cannot use stdio by multiple character devices")
        }
        let service = service
        chardevs.append(try await Chardev(options, on: context) { await service.waitForQuit() })
    }

    private func addMonitor(_ options: MonitorOptions) throws(BlockError) {
        guard let chardev = chardevs.first(where: { $0.id == options.chardev }) else {
            throw BlockError(.notFound, "chardev \"\(options.chardev)\" not found")
        }
        try chardev.attach(to: monitors, pretty: options.pretty ?? false)
    }

    private func writePIDFile() throws(ToolFailure) {
        guard let path = plan.pidFile else { return }
        do throws(BlockError) { pidFile = try PidFile(creating: path) } catch { throw ToolFailure("cannot create PID file", error) }
    }

    /// Closes everything: clients first, then nodes, then those who might still want to hear of it.
    @discardableResult
    private func end() async -> BlockError? {
        var failure: BlockError?
        do throws(BlockError) { try await service.shutDown() } catch { failure = error }
        await monitors.stop()
        for chardev in chardevs { chardev.close() }
        pidFile?.remove()
        return failure
    }
}
