import BlockEncryption
import BlockGraph
import IOCore
import ManagedObjects
import QAPIRuntime
import QCOW2
import StorageSchema
import StrataBase
import ToolSupport

/// Makes image files.
struct ImageCreation {
    let session: ImageSession
    /// Cache mode of the new file.
    var cache = CacheMode.writeback
    /// Told how much of a preallocated file is there.
    var progress: ProgressReporter?

    /// Makes the image that `request` describes, replacing a file of that name, or in the device or NBD export of that name. Everything that can be checked
    /// is checked before that.
    /// - Returns: whether the new image shows nothing but zeroes.
    /// - Throws: what is wrong, without the file's name in front. A file that had to be made for this is gone again.
    @discardableResult func create(_ request: CreateRequest) async throws(BlockError) -> Bool {
        guard let size = request.size else { throw BlockError(.invalidArgument, "Image creation needs a size parameter") }
        let byteCount = try Self.wholeSectors(size)
        if request.filename.isEmpty { throw BlockError(.notFound, "Could not create '': No such file or directory") }
        let reference = try ImageReference(protocolOf: request.filename)
        let plan = try Plan(request, byteCount: byteCount)
        if Self.existing.contains(reference.driver ?? "") {
            try await createInPlace(reference, plan)
            return plan.isZeroAnywhere && request.readsAsZero
        }
        guard let path = reference.options["filename"]?.string else {
            throw BlockError(.invalidArgument, "The 'file' block driver requires a file name")
        }
        let isNew = try HostFile.create(path, extentHint: request.number("extent_size_hint") ?? HostFile.usualExtentHint)
        do throws(BlockError) {
            if let secret = plan.keySecret { _ = try session.graph.objects.password(secret) }
            try await watching(path, byteCount) { () async throws(BlockError) in
                guard case .qcow2(_, let dataFile?) = plan else { return try await fill(reference, plan) }
                try await withDataFile(dataFile) { data throws(BlockError) in try await fill(reference, plan, data) }
            }
        } catch {
            if isNew { try HostFile.remove(path) }
            throw error
        }
        return request.readsAsZero
    }

    /// Drivers whose disks somebody else makes: they keep their length, and what they hold is overwritten.
    private static let existing: Set = ["host_device", "nbd"]

    private func createInPlace(_ reference: ImageReference, _ plan: Plan) async throws(BlockError) {
        if let secret = plan.keySecret { _ = try session.graph.objects.password(secret) }
        let isDevice = reference.driver == "host_device"
        var isOpen = false
        do throws(BlockError) {
            try await session.withWritable(reference, cache: cache) { disk async throws(BlockError) in
                isOpen = true
                switch plan {
                case .plain(let byteCount, let preallocation, _):
                    if preallocation != .off { throw BlockError(.unsupported, "Unsupported preallocation mode '\(preallocation.rawValue)'") }
                    if byteCount > disk.length { throw BlockError(.unsupported, isDevice ? "Cannot grow device files" : "Cannot grow NBD nodes") }
                    // Nobody shall take it for an image of a format that was there before.
                    try await disk.writeZeroes(GuestRange(GuestOffset(0), byteCount: min(disk.length, ConvertSource.sectorSize)))
                case .qcow2(_, let dataFile?):
                    try await withDataFile(dataFile) { data throws(BlockError) in try await format(disk, plan, data) }
                case .qcow2, .luks: try await format(disk, plan)
                }
            }
        } catch {
            if isOpen || isDevice { throw error }
            throw BlockError(
                error.code,
                "Protocol driver 'nbd' does not support creating new images, so an existing image must be selected as the target; however, opening the given target as an existing image failed: \(error.message)")
        }
    }

    /// What is preallocated shows in the room that the file takes.
    private func watching(_ path: String, _ byteCount: Int, _ body: () async throws(BlockError) -> Void) async throws(BlockError) {
        guard let progress else { return try await body() }
        try await progress.watching(on: session.graph.context, { (HostFile.allocatedSize(ofFileNamed: path) ?? 0, byteCount) }, body)
    }

    /// Lends out the file for guest data: the one that is there if it is to be kept, else a new one in its place.
    private func withDataFile(_ dataFile: DataFile, _ body: (BlockBackend) async throws(BlockError) -> Void) async throws(BlockError) {
        let name = dataFile.name
        if name.isEmpty { throw BlockError(.notFound, "Could not create '': No such file or directory") }
        if name.hasPrefix("json:") { throw BlockError(.invalidArgument, "Unknown protocol 'json'") }
        let reference = try ImageReference(named: name, format: "file")
        if dataFile.isKept { return try await session.withWritable(reference, cache: cache, body) }
        let path = reference.options["filename"]?.string ?? name
        let isNew = try HostFile.create(path)
        do throws(BlockError) {
            try await session.withEmptied(reference, cache: cache, body)
        } catch {
            if isNew { try HostFile.remove(path) }
            throw error
        }
    }

    private static func wholeSectors(_ size: Int) throws(BlockError) -> Int {
        guard size <= Int.max - ConvertSource.sectorSize else { throw BlockError(.tooLarge, "The image size is too large") }
        return size.roundedUp(to: ConvertSource.sectorSize)
    }

    private struct DataFile {
        let name: String
        let isKept: Bool
    }

    /// What is done with the empty file.
    private enum Plan {
        case plain(byteCount: Int, PreallocMode, format: String)
        case qcow2(BlockdevCreateOptionsQcow2, dataFile: DataFile?)
        case luks(BlockdevCreateOptionsLUKS)

        /// Whether the new image shows zeroes whatever its disk held before.
        var isZeroAnywhere: Bool {
            if case .qcow2(let options, nil) = self { options.preallocation ?? .off == .off } else { false }
        }

        /// The secret that opens the new image.
        var keySecret: String? {
            switch self {
            case .plain: nil
            case .qcow2(let options, _): options.encrypt?.keySecret
            case .luks(let options): options.keySecret
            }
        }

        init(_ request: CreateRequest, byteCount: Int) throws(BlockError) {
            if let hint = request.number("extent_size_hint"), hint > Int(UInt32.max) {
                throw BlockError(.invalidArgument, "Extent size hint is too large")
            }
            if request.format.name == CreateFormat.luks.name {
                let options = try BlockdevCreateOptionsLUKS(request, byteCount: byteCount)
                try LUKSDriver.checkCreation(options)
                self = .luks(options)
                return
            }
            guard request.format.name == "qcow2" else {
                let word = request.text("preallocation") ?? "off"
                guard let mode = PreallocMode(rawValue: word) else { throw BlockError(.invalidArgument, "invalid parameter value: \(word)") }
                if mode == .metadata { throw BlockError(.invalidArgument, "Unsupported preallocation mode: \(word)") }
                self = .plain(byteCount: byteCount, mode, format: request.format.name)
                return
            }
            let isKept = request.flag("keep_data_file") ?? false
            let dataFile = request.text("data_file").map { DataFile(name: $0, isKept: isKept) }
            if isKept, dataFile == nil { throw BlockError(.invalidArgument, "keep_data_file can only be used together with data_file") }
            self = .qcow2(try BlockdevCreateOptionsQcow2(request, byteCount: byteCount), dataFile: dataFile)
        }
    }

    private func password(_ plan: Plan) throws(BlockError) -> [UInt8]? {
        guard let secret = plan.keySecret else { return nil }
        return Array(try session.graph.objects.password(secret).utf8)
    }

    private func fill(_ reference: ImageReference, _ plan: Plan, _ dataFile: BlockBackend? = nil) async throws(BlockError) {
        try await session.withEmptied(reference, cache: cache) { file async throws(BlockError) in try await format(file, plan, dataFile) }
    }

    /// Puts the image into what is to hold it.
    private func format(_ file: BlockBackend, _ plan: Plan, _ dataFile: BlockBackend? = nil) async throws(BlockError) {
        switch plan {
        case .plain(let byteCount, let preallocation, let format):
            do throws(BlockError) {
                try await file.resize(to: byteCount, preallocation: preallocation)
            } catch where error.code == .tooLarge {
                throw BlockError(.tooLarge, "The image size is too large for file format '\(format)'")
            }
        case .qcow2(let options, let named):
            try await QCOW2Driver.create(options, in: file, dataFile: dataFile, dataFileName: named?.name, password: try password(plan))
        case .luks(let options):
            try await LUKSDriver.create(options, password: try password(plan) ?? [], in: file)
        }
    }
}
