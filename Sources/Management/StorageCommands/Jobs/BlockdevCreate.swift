import BlockEncryption
import BlockGraph
import IOCore
import JobCore
import ManagedObjects
import QCOW2
package import StorageSchema
import StrataBase

extension StorageService {
    /// Makes an image: a job that stays until it is dismissed, so that its outcome is not missed.
    package func blockdevCreate(_ arguments: BlockdevCreateArguments) async throws {
        try checkNotShuttingDown()
        switch arguments.options.branch {
        case .file, .luks, .qcow2: break
        default: throw BlockError(.unsupported, "Driver does not support blockdev-create")
        }
        var settings = JobSettings(id: arguments.jobId, type: .create)
        settings.isBlockJob = false
        settings.dismissesAutomatically = false
        let (graph, options) = (graph, arguments.options)
        try await jobs.start(settings) { _ async throws(BlockError) in CreateJob(options, in: graph) }
    }
}

/// Makes one image.
private final class CreateJob: JobDriver {
    static var type: JobType { .create }

    private let options: BlockdevCreateOptions
    private let graph: BlockGraph

    init(_ options: BlockdevCreateOptions, in graph: BlockGraph) {
        self.options = options
        self.graph = graph
    }

    func run(_ job: Job) async throws(BlockError) {
        job.progress.restart(total: 1)
        defer { job.progress.add(1) }
        switch options.branch {
        case .file(let options): try await makeFile(options, job)
        case .luks(let options): try await makeLUKS(options, job)
        case .qcow2(let options): try await makeQCOW2(options, job)
        default: preconditionFailure("other drivers are refused by the command")
        }
    }

    private func makeFile(_ options: BlockdevCreateOptionsFile, _ job: Job) async throws(BlockError) {
        if options.preallocation == .metadata { throw BlockError(.invalidArgument, "Unsupported preallocation mode: metadata") }
        let hint = options.extentSizeHint ?? HostFile.usualExtentHint
        guard hint <= Int(UInt32.max) else { throw BlockError(.invalidArgument, "Extent size hint is too large") }
        try BlockLimits.check(newLength: options.size)
        _ = try await graph.withNewFile(options.filename, extentHint: hint, holder: job.holderName) { backend async throws(BlockError) in
            try await backend.resize(to: options.size.roundedUp(to: 512), preallocation: options.preallocation ?? .off)
        }
    }

    private func makeQCOW2(_ options: BlockdevCreateOptionsQcow2, _ job: Job) async throws(BlockError) {
        try await mustExist(options.file)
        if let dataFile = options.dataFile { try await mustExist(dataFile) }
        guard options.size.isMultiple(of: 512) else { throw BlockError(.invalidArgument, "Image size must be a multiple of 512 bytes") }
        if options.backingFmt != nil, options.backingFile == nil {
            throw BlockError(.invalidArgument, "Backing format cannot be used without backing file")
        }
        try QCOW2Driver.checkCreation(options)
        let password: [UInt8]? =
            switch options.encrypt?.branch {
            case .luks(let encryption): try password(encryption.keySecret)
            case .qcow(let encryption): try password(encryption.keySecret)
            case nil: nil
            }
        guard let dataFile = options.dataFile else {
            return try await with(options.file, job) { backend async throws(BlockError) in
                try await QCOW2Driver.create(options, in: backend, password: password)
            }
        }
        try await with(options.file, job) { [self] backend async throws(BlockError) in
            try await with(dataFile, isEmptied: false, job) { data async throws(BlockError) in
                try await QCOW2Driver.create(options, in: backend, dataFile: data, dataFileName: data.root.node.filename, password: password)
            }
        }
    }

    private func makeLUKS(_ options: BlockdevCreateOptionsLUKS, _ job: Job) async throws(BlockError) {
        guard let file = options.file else { throw BlockError(.invalidArgument, "Parameter 'file' is missing") }
        try LUKSDriver.checkCreation(options)
        guard let password = try password(options.keySecret) else { throw BlockError(.invalidArgument, "Parameter 'key-secret' is required for cipher") }
        try await with(file, job) { backend async throws(BlockError) in try await LUKSDriver.create(options, password: password, in: backend) }
    }

    private func password(_ secret: String?) throws(BlockError) -> [UInt8]? {
        guard let secret else { return nil }
        return Array(try graph.objects.password(secret).utf8)
    }

    private func mustExist(_ reference: BlockdevRef) async throws(BlockError) {
        guard case .reference(let name) = reference, await graph.node(named: name) == nil else { return }
        throw BlockError(.notFound, "Cannot find device='\(name)' nor node-name='\(name)'")
    }

    /// Lends out a node that is there, or one that is there for that long only.
    private func with(
        _ reference: BlockdevRef, isEmptied: Bool = true, _ job: Job, _ body: @Sendable (BlockBackend) async throws(BlockError) -> Void
    ) async throws(BlockError) {
        switch reference {
        case .reference(let name): try await graph.withExclusive(nodeNamed: name, isEmptied: isEmptied, holder: job.holderName, body)
        case .definition(let definition): try await graph.withExclusive(definition, isEmptied: isEmptied, holder: job.holderName, body)
        }
    }
}
