import CharacterDevices
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
    private var pidFile: PidFile?
    /// Monitors that the command line asks for. Their clients are served when all of it is carried out, so that nobody sees or changes half of it.
    private var promised: [(options: MonitorOptions, source: String)] = []

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
                do throws(QMPError) { try await perform(step) } catch { throw ToolFailure("\(step.source): \(error.message)") }
            }
            for (options, source) in promised {
                do throws(BlockError) { try serve(options) } catch { throw ToolFailure("\(source): \(error.message)") }
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
        let impatience = Impatience()
        do throws(BlockError) {
            try ProcessSignals.watchTermination(on: context) { signal in
                impatience.heard(signal)
                service.requestQuit()
            }
        } catch {
            throw ToolFailure(nil, error)
        }
    }

    private func perform(_ step: DaemonPlan.Step) async throws(QMPError) {
        do {
            switch step.action {
            case .addDescriptor(let passed): try service.addInherited(descriptor: passed.descriptor, toSet: passed.set, opaque: passed.opaque)
            case .addNode(let options): try await service.blockdevAdd(options)
            case .addExport(let options): try await service.blockExportAdd(options)
            case .startNBDServer(let options): try await service.startNBDServer(options)
            case .addObject(let options): try await service.objectAdd(options)
            case .addChardev(let options): try await service.addChardev(options.id, options.backend)
            case .addMonitor(let options):
                _ = try chardev(of: options)
                promised.append((options, step.source))
            }
        } catch {
            throw QMPError(error)
        }
    }

    private func chardev(of options: MonitorOptions) throws(BlockError) -> any CharacterDevice {
        guard let chardev = service.chardevs.find(options.chardev) else {
            throw BlockError(.notFound, "chardev \"\(options.chardev)\" not found")
        }
        return chardev
    }

    private func serve(_ options: MonitorOptions) throws(BlockError) { try monitors.serve(on: try chardev(of: options), pretty: options.pretty ?? false) }

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
        service.chardevs.shutDownAll()
        pidFile?.remove()
        return failure
    }
}
