import BlockEncryption
import BlockGraph
import IOCore
import JobCore
import ManagedObjects
package import StorageSchema
import StrataBase

extension StorageService {
    /// Changes the keys of a disk that may be in use: a job that stays until it is dismissed.
    package func xBlockdevAmend(_ arguments: XBlockdevAmendArguments) async throws {
        try checkNotShuttingDown()
        let name = arguments.nodeName
        guard let node = await graph.node(named: name) else { throw BlockError(.notFound, "Cannot find device='' nor node-name='\(name)'") }
        guard node.formatName == arguments.options.driver.rawValue else {
            throw BlockError(.invalidArgument, "x-blockdev-amend doesn't support changing the block driver")
        }
        guard node.driver is any KeySlotAmending else { throw BlockError(.unsupported, "Driver does not support x-blockdev-amend") }
        let wish: QCryptoBlockAmendOptionsLUKS
        switch arguments.options.branch {
        case .luks(let options):
            wish = QCryptoBlockAmendOptionsLUKS(
                state: options.state, newSecret: options.newSecret, oldSecret: options.oldSecret, keyslot: options.keyslot, iterTime: options.iterTime,
                secret: options.secret)
        case .qcow2(let options):
            guard case .luks(let keys)? = options.encrypt?.branch else { throw BlockError(.invalidArgument, "Only LUKS encryption options can be amended") }
            wish = keys
        default: throw BlockError(.unsupported, "Driver does not support x-blockdev-amend")
        }
        let objects = objects
        let change = try KeySlotChange(wish, isForced: arguments.force ?? false) { id throws(BlockError) in Array(try objects.password(id).utf8) }
        var settings = JobSettings(id: arguments.jobId, type: .amend)
        settings.isBlockJob = false
        settings.dismissesAutomatically = false
        let graph = graph
        try await jobs.start(settings) { _ async throws(BlockError) in AmendJob(change, of: name, in: graph) }
    }
}

/// Changes key slots once.
private final class AmendJob: JobDriver {
    static var type: JobType { .amend }

    private let change: KeySlotChange
    private let nodeName: String
    private let graph: BlockGraph

    init(_ change: KeySlotChange, of nodeName: String, in graph: BlockGraph) {
        self.change = change
        self.nodeName = nodeName
        self.graph = graph
    }

    func run(_ job: Job) async throws(BlockError) {
        job.progress.restart(total: 1)
        defer { job.progress.add(1) }
        // Guests go on meanwhile: what changes is none of their data.
        let backend = try await graph.makeBackend(named: job.holderName, on: nodeName, PermissionGrant(used: [.consistentRead, .write], shared: .all))
        let outcome: Result<Void, BlockError>
        do throws(BlockError) {
            guard let driver = backend.root.node.driver as? any KeySlotAmending else {
                throw BlockError(.unsupported, "Driver does not support x-blockdev-amend")
            }
            outcome = .success(try await driver.changeKeySlots(change))
        } catch { outcome = .failure(error) }
        await graph.release(backend)
        try outcome.get()
    }
}
