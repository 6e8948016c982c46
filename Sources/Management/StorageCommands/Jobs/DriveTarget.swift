import BlockGraph
import IOCore
import QAPIRuntime
import StorageSchema
import StrataBase

/// An image that a command opens for the job which it starts: open for as long as the job, or whoever gets it from the job, holds it.
struct DriveTarget: Sendable {
    let node: BlockNode
    /// Where it has no data the source shows through.
    let standsOnSource: Bool
    /// Keeps the node until the job has it.
    private let hold: BlockBackend
    /// The file, if it was not there before.
    private let newFile: String?

    /// What users say about the image, and what the job needs of it.
    struct Request: Sendable {
        /// The command, as messages call it.
        var command: String
        var name: String
        var format: String?
        var mode: NewImageMode?
        var nodeName: String?
        var sync: MirrorSyncMode
        /// An image that is there reads through to the source, whatever it names, when nothing is copied in the beginning.
        var replacesBacking = false
        var unmaps = true
        /// Whether zeroes are looked for as at the source.
        var detectsZeroes = false
    }

    /// Makes the image if that is wanted, and opens it.
    /// - Parameter source: what is going to be copied; it decides the size, the format if nobody has named one, and what lies below.
    /// - Throws: what is wrong with the names, the file or the image. A file that was made for this is then gone again.
    static func open(_ request: Request, for source: BlockNode, in graph: BlockGraph) async throws(BlockError) -> DriveTarget {
        let exists = request.mode == .existing
        let wasProbed = exists && request.format == nil
        let format = wasProbed ? try await probe(request.name, in: graph) : request.format ?? source.formatName
        guard let driver = BlockdevDriver(rawValue: format), graph.drivers.names.contains(format) else {
            throw BlockError(.invalidArgument, "Unknown file format '\(format)'")
        }
        let below = backing(request.sync, of: source)
        let newFile = exists ? nil : try await make(request.name, driver, over: below, for: source, in: graph)
        do throws(BlockError) {
            var options = try options(request, format, source)
            let takesBacking = try graph.drivers.driver(named: format).supportsBacking && (!exists || (request.replacesBacking && below === source))
            if let below, takesBacking { options["backing"] = .string(below.name) }
            let decoded = try decode(options)
            let (node, hold) = try await graph.change { change async throws(BlockError) -> (BlockNode, BlockBackend) in
                let node = try await change.open(decoded, isMonitorOwned: false, isProbed: wasProbed)
                return (node, change.makeBackend(named: request.command, on: node, PermissionGrant(used: [], shared: .all)))
            }
            return DriveTarget(node: node, standsOnSource: takesBacking && below === source, hold: hold, newFile: newFile.flatMap { $0.isNew ? $0.path : nil })
        } catch {
            if let newFile, newFile.isNew { try HostFile.remove(newFile.path) }
            throw error
        }
    }

    /// What the image has below it for good: the parts of the disk that are not copied.
    private static func backing(_ sync: MirrorSyncMode, of source: BlockNode) -> BlockNode? {
        switch sync {
        case .none: return source
        case .full: return nil
        case .top, .incremental, .bitmap:
            var image = source
            while image.kind == .filter, let below = image.chainChild?.node { image = below }
            return sync == .top ? image.backingChild?.node : nil
        }
    }

    private static func make(
        _ name: String, _ format: BlockdevDriver, over backing: BlockNode?, for source: BlockNode, in graph: BlockGraph
    ) async throws(BlockError) -> (path: String, isNew: Bool) {
        let file = try FileName(parsing: name).options
        let keeper = file["driver"]?.string ?? ""
        guard ["file", "host_device"].contains(keeper), let path = file["filename"]?.string else {
            throw BlockError(
                .unsupported, "Protocol driver '\(keeper)' does not support creating new images, so an existing image must be selected as the target",
                hint: "Make the image where it is, and use mode=existing.")
        }
        return (path, try await NewImage(graph: graph, path: path, format: format, source: source).create(over: backing))
    }

    private static func probe(_ name: String, in graph: BlockGraph) async throws(BlockError) -> String {
        try await graph.probeFormat(inside: try decode(try FileName(parsing: name).options))
    }

    private static func decode(_ options: JSONObject) throws(BlockError) -> BlockdevOptions {
        do throws(QMPError) { return try BlockdevOptions(decoding: .object(options), mode: .keyValue) } catch {
            throw BlockError(.invalidArgument, error.message)
        }
    }

    private static func options(_ request: Request, _ format: String, _ source: BlockNode) throws(BlockError) -> JSONObject {
        var options = try ImageName.options(request.name, format: format)
        options["node-name"] = request.nodeName.map(JSONValue.string)
        var cache = JSONObject()
        cache["direct"] = .bool(source.options.bypassesCache)
        cache["no-flush"] = .bool(source.options.ignoresFlushes)
        options["cache"] = .object(cache)
        if request.unmaps { options["discard"] = "unmap" }
        if request.detectsZeroes, source.options.detectZeroes != .off {
            options["detect-zeroes"] = .string((request.unmaps ? .unmap : source.options.detectZeroes).rawValue)
        }
        return options
    }

    /// The job has it now.
    func leave(in graph: BlockGraph) async { await graph.release(hold) }

    /// There is no job: what was made goes again.
    func discard(in graph: BlockGraph) async {
        await graph.release(hold)
        guard let newFile else { return }
        do throws(BlockError) { try HostFile.remove(newFile) } catch { StandardStreams.warn("\(error)") }
    }
}
