import BlockCopy
import BlockGraph
import IOCore
import ManagedObjects
import StorageSchema
import StrataBase
import ToolSupport

/// One run of `convert`: opens the sources, makes and opens the target, copies, closes.
struct Conversion {
    private let plan: ConvertPlan
    private let context: IOContext
    private let session: ImageSession
    private let progress: ProgressReporter

    init(_ plan: ConvertPlan, on context: IOContext, objects: ObjectRegistry) {
        self.plan = plan
        self.context = context
        session = ImageSession(context: context, objects: objects)
        progress = ProgressReporter(plan.progress)
    }

    func run() async throws(ToolFailure) {
        try await progress.beforehand { () async throws(ToolFailure) in try await convert() }
    }

    private func convert() async throws(ToolFailure) {
        var images: [OpenImage] = []
        try ConvertPlan.check(isOptions: plan.sourcesAreOptions, formatIsGiven: plan.sourceFormat != nil)
        for name in plan.sources {
            var settings = ImageSettings()
            settings.cache = plan.sourceCache
            settings.forceShare = plan.forceShare
            // The target may be one of the files below a source.
            settings.toleratesWriters = false
            images.append(try await session.open(ImageArgument(name, isOptions: plan.sourcesAreOptions, format: plan.sourceFormat), settings))
        }
        if let snapshot = plan.snapshot {
            // With an option instead of a name it is the first image's, as in QEMU.
            if case .text = snapshot, images.count > 1 { throw ToolFailure("No support for concatenating multiple snapshot") }
            try await SnapshotChoice.load(snapshot, of: images[0], in: session)
        }
        let source: ConvertSource
        do throws(BlockError) { source = try ConvertSource(images.map(\.backend)) } catch { throw ToolFailure(nil, error) }
        let made = try targetRequest(length: source.length)
        var bitmaps: BitmapCopy?
        if plan.copiesBitmaps {
            guard images.count == 1 else { throw ToolFailure("Copying bitmaps only possible with single source") }
            bitmaps = try BitmapCopy(of: images[0].node, skipsBroken: plan.skipsBrokenBitmaps)
            if let made, made.format.name != CreateFormat.qcow2.name || ["0.10", "v2"].contains(made.text("compat")) { throw Self.cannotKeepBitmaps(made.format.name) }
        }

        Interruption.leaves("'\(plan.target)' is incomplete")
        defer { Interruption.leavesNothing() }
        let cache = try CacheMode(argument: plan.targetCache, "cache option") ?? .unsafe
        let isZero = if let made { try await create(made, cache) } else { plan.targetIsZero }
        var settings = ImageSettings()
        settings.isReadOnly = false
        settings.cache = cache
        settings.unmaps = true
        // O_DIRECT may have units that the disk's end lies in the middle of.
        settings.resizes = true
        try ConvertPlan.check(isOptions: plan.targetIsOptions, formatIsGiven: plan.targetFormatIsGiven)
        let target = try await session.open(
            ImageArgument(plan.target, isOptions: plan.targetIsOptions, format: plan.targetIsOptions ? nil : plan.targetFormat), keys: made?.keyOptions ?? [], settings)
        if plan.compresses, target.node.compressionUnit == nil { throw Self.cannotCompress }
        if plan.copiesBitmaps, (target.node.driver as? any BitmapPersisting)?.canStoreBitmaps != true { throw Self.cannotKeepBitmaps(target.node.formatName) }
        let length = target.backend.length
        guard length >= source.length else { throw ToolFailure("output file is smaller than input file") }

        try await session.closing(progress) { () async throws(ToolFailure) in
            do throws(BlockError) {
                try await copy(source, to: target, made, isZero: isZero, progress)
                // The disk is as long as it was made, although its last unit was written whole.
                if target.backend.length > length { try await target.backend.resize(to: length) }
            } catch { throw ToolFailure(nil, error) }
            try await bitmaps?.copy(to: target.node, in: session.graph)
        }
    }

    private static let cannotCompress = ToolFailure("Compression not supported for this file format")

    private static func cannotKeepBitmaps(_ format: String) -> ToolFailure { ToolFailure("Format driver '\(format)' does not support bitmaps") }

    /// What is to be made; nil when an existing target is to be used.
    private func targetRequest(length: Int) throws(ToolFailure) -> CreateRequest? {
        guard plan.createsTarget else { return nil }
        let format = try CreateRequest.format(named: plan.targetFormat)
        do throws(BlockError) { _ = try ImageReference(protocolOf: plan.target) } catch { throw ToolFailure(nil, error) }
        var request = try CreateRequest(
            filename: plan.target, format: format, options: OptionList(parsing: plan.targetOptions.joined(separator: ",")))
        request.set("size", to: .size(length))
        if plan.compresses {
            guard format.compresses else { throw Self.cannotCompress }
            if let mode = request.text("preallocation"), mode != PreallocMode.off.rawValue {
                throw ToolFailure("Compression and preallocation not supported at the same time")
            }
        }
        if let backing = plan.backing {
            guard format.supportsBacking else { throw ToolFailure("Backing file not supported for file format '\(format.name)'") }
            request.set("backing_file", to: .text(backing))
        }
        if let backingFormat = plan.backingFormat {
            guard format.supportsBacking else { throw ToolFailure("Backing file format not supported for file format '\(format.name)'") }
            request.set("backing_fmt", to: .text(backingFormat))
        }
        if request.hasBacking {
            if plan.sources.count > 1 {
                throw ToolFailure("Having a backing file for the target makes no sense when concatenating multiple input images")
            }
            if request.text("backing_fmt") == nil { throw ToolFailure("Use of backing file requires explicit backing format") }
        }
        return request
    }

    /// - Returns: whether the target shows nothing but zeroes.
    private func create(_ request: CreateRequest, _ cache: CacheMode) async throws(ToolFailure) -> Bool {
        do throws(BlockError) {
            var creation = ImageCreation(session: session)
            creation.cache = cache
            return try await creation.create(request)
        } catch {
            throw ToolFailure("\(plan.target): error while converting \(request.format.name)", error)
        }
    }

    private func copy(
        _ source: ConvertSource, to target: OpenImage, _ made: CreateRequest?, isZero: Bool, _ progress: ProgressReporter
    ) async throws(BlockError) {
        var source = source
        source.leavesBacking = made?.hasBacking ?? (plan.backing != nil)
        source.salvage = plan.salvage
        var settings = plan.copy
        // Nobody else writes to an image that is converted.
        settings.sourceIsStable = true
        settings.targetIsZero = isZero
        settings.writeFlags = target.writeFlags
        if plan.compresses { settings.compressionUnit = target.node.compressionUnit }
        let clusterSize = try await target.node.imageDescribing?.describeImage().clusterSize
        // Clusters would be set apart for a copy that then may not be had.
        if clusterSize != nil, settings.sharesOnly { settings.usesCopyRange = false }
        let threads = CopyThreads(context, for: settings.workers > 1 ? source.length : 0)
        defer { threads.stop() }
        // Threads that wait for each other's turn do not overlap. What it costs: the clusters of the target lie in the order of the source only
        // roughly, a stripe here and there exchanged. One worker (-m 1) keeps the order exactly.
        settings.isOrdered = !plan.isUnordered && threads.contexts.count == 1
        let work = StripeCursor(length: source.length, stripeSize: max(settings.pieceSize, settings.compressionUnit ?? 1))
        let copier = BlockCopier(
            source, to: target.backend.root, clusterSize: clusterSize, work: work, settings, gates: source.parts.map(\.backend) + [target.backend],
            delegate: CopyWatch(work, plan.rate, progress))
        try await copier.run(on: threads.contexts)
    }
}
