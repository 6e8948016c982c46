import BlockCopy
import BlockGraph
import IOCore
import QAPIRuntime
import StrataBase
import ToolSupport

/// One run of `rebase`.
struct Rebase {
    private let image: OpenImage
    /// Empty for none.
    private let backing: String
    private let format: String?
    private let session: ImageSession
    private let progress: ProgressReporter
    var compresses = false

    init(_ image: OpenImage, onto backing: String, format: String?, in session: ImageSession, _ progress: ProgressReporter) {
        self.image = image
        self.backing = backing
        self.format = format
        self.session = session
        self.progress = progress
    }

    /// Checks everything that can be checked, copies what would change, and only then changes the name.
    /// - Parameter isUnsafe: copy nothing, and look at no backing file.
    func run(isUnsafe: Bool, _ backingSettings: ImageSettings) async throws(ToolFailure) {
        if compresses, image.node.compressionUnit == nil { throw ToolFailure("Compression not supported for this file format") }
        if let format, !DriverNames.all.contains(format) { throw ToolFailure("Invalid format name: '\(format)'") }
        var newBase: OpenImage?
        if !isUnsafe, !backing.isEmpty { newBase = try await openBacking(backingSettings) }
        let context = "Could not change the backing file to '\(backing)'"
        if !backing.isEmpty, format == nil { throw ToolFailure("\(context): backing format must be specified") }
        guard let naming = image.node.driver as? any BackingFileNaming else {
            throw ToolFailure("\(context): \(BlockError.text(ofErrno: BlockError(.unsupported, "").errno))")
        }
        if !isUnsafe {
            do throws(BlockError) { try await copy(differingFrom: newBase) } catch { throw ToolFailure(nil, error) }
        }
        do throws(BlockError) {
            try await naming.changeBackingFile(to: backing.isEmpty ? nil : backing, format: format)
        } catch { throw ToolFailure(context, error) }
    }

    private func openBacking(_ settings: ImageSettings) async throws(ToolFailure) -> OpenImage {
        do throws(BlockError) {
            let path = BackingReference.resolve(backing, relativeTo: image.node.filename)
            return try await session.open(try ImageReference(named: path, format: format), settings)
        } catch {
            throw ToolFailure("Could not open new backing file '\(backing)'", error)
        }
    }

    /// Writes into the image what a reader would miss on the new base.
    private func copy(differingFrom newBase: OpenImage?) async throws(BlockError) {
        let description = try await image.node.imageDescribing?.describeImage()
        var settings = CopySettings()
        // What reads as zero has to hide what the new base has there.
        settings.zeroFlags = []
        let oldBase = image.node.backingChild?.node
        // An image of version 2 cannot note zeroes: beyond the end of the old base it does nothing when it is asked for them.
        let notesZeroes = description?.specific?.json["data"]?["compat"]?.string != "0.10"
        if !notesZeroes, (oldBase?.length ?? 0) < min(image.backend.length, newBase?.backend.length ?? 0) { settings.sparseUnit = 0 }
        settings.writeFlags = image.writeFlags
        if compresses { settings.compressionUnit = image.node.compressionUnit }
        let unit = description?.clusterSize ?? RebaseSource.standardUnit
        let source = RebaseSource(image.backend.root, oldBase: oldBase, newBase: newBase?.backend.root, unit: unit)
        let threads = CopyThreads(IOContext.current ?? session.graph.context, for: source.length)
        defer { threads.stop() }
        let work = StripeCursor(length: source.length, stripeSize: max(settings.pieceSize, unit))
        let copier = BlockCopier(
            source, to: image.backend.root, clusterSize: description?.clusterSize, work: work, settings,
            gates: [image.backend] + (newBase.map { [$0.backend] } ?? []), delegate: CopyWatch(work, nil, progress))
        try await copier.run(on: threads.contexts)
    }
}
