import BlockEncryption
import BlockGraph
import IOCore
import ManagedObjects
import QAPIRuntime
import QCOW2
import StorageSchema
import StrataBase
import Synchronization
import ToolSupport

/// `measure`: how much room a new image would take.
enum MeasureCommand: ImgCommand {
    enum Key: ImageOptionKey, LimitsOptionKey {
        case help, format, imageOptions, targetFormat, options, output, snapshot, size, forceShare, object, limitsMemory, limitsTime
    }

    static let name = "measure"
    static let declaration = CommandDeclaration<Key>(
        name, summary: "Calculate file size required for a new image",
        usage: [
            "[-f FMT | --image-opts] [-O TARGET_FMT] [-o OPTIONS] [-l SNAPSHOT] [-U]", "[--output human|json] [--object OBJDEF]",
            "[--limits-memory SIZE] [--limits-time SECONDS] (--size SIZE | FILENAME)",
        ],
        options: [
            .init(.targetFormat, "O", "target-format", value: "FMT", help: "the new image's format (default: raw)"),
            .init(.options, "o", "options", value: "OPTIONS", help: "options of the new image's format"),
            .init(.size, "s", "size", value: "SIZE", help: "measure an empty image of this size"),
            .init(.format, "f", "format", value: "FMT", help: "the format of FILENAME; found out when not given"),
            .imageOptions(.imageOptions),
            .init(.snapshot, "l", "snapshot", value: "SNAPSHOT", help: "measure this snapshot: an ID, a name,", "or snapshot.id=ID,snapshot.name=NAME"),
            .output(.output),
            .forceShare(.forceShare),
            .object(.object),
            .limitsMemory,
            .limitsTime,
        ],
        operands: [.init("FILENAME", help: "measure what a conversion of this image would take")])

    static func run(_ arguments: ParsedArguments<Key>, _ context: CommandContext) async throws(ToolFailure) -> Int32 {
        let objects = try UserObjects.make(arguments.all(.object))
        var output = OutputFormat.human
        var size: Int?
        var snapshot: SnapshotChoice.Wish?
        for option in arguments.occurrences {
            let value = option.value ?? ""
            switch option.key {
            case .output: output = try context.outputFormat(value)
            case .size: size = try NumberArgument.parse(value, "image size", in: 0...Int.max)
            case .snapshot: snapshot = try SnapshotChoice.Wish(value)
            case .options: guard OptionList.isWellFormed(value) else { throw ToolFailure("Invalid option list: \(value)") }
            case .help, .format, .imageOptions, .targetFormat, .forceShare, .object, .limitsMemory, .limitsTime: break
            }
        }
        guard arguments.operands.count <= 1 else { throw ToolFailure("At most one filename argument is allowed.") }
        let name = arguments.operands.first
        if name == nil, arguments.contains(.format) || arguments.contains(.imageOptions) || snapshot != nil {
            throw ToolFailure("--image-opts, -f, and -l require a filename argument.")
        }
        if name == nil, size == nil { throw ToolFailure("Either --size N or one filename must be specified.") }
        if name != nil, size != nil { throw ToolFailure("--size N cannot be used together with a filename.") }

        let session = ImageSession(context: context.ioContext, objects: objects)
        var source: OpenImage?
        if let name {
            let named = try arguments.image(name)
            var settings = ImageSettings()
            settings.forceShare = arguments.contains(.forceShare)
            let image = try await session.open(named, settings)
            if let snapshot { try await SnapshotChoice.load(snapshot, of: image, in: session) }
            source = image
        }
        let progress = ProgressReporter(.whenItTakesLong)
        let result = try await session.closing(progress) { () async throws(ToolFailure) -> ImageMeasure in
            try await measure(source, size: size ?? 0, arguments, objects, progress)
        }
        guard StandardStreams.print(output == .json ? result.json : result.text) else { throw ToolFailure("Could not write to standard output") }
        return 0
    }

    /// Formats and protocols of which QEMU makes images that it cannot measure, and we make none.
    private static let creatableElsewhere: Set = ["file", "host_device", "nbd", "vdi", "vhdx", "vmdk", "vpc"]

    private static func measure(
        _ source: OpenImage?, size: Int, _ arguments: ParsedArguments<Key>, _ objects: ObjectRegistry, _ progress: ProgressReporter
    ) async throws(ToolFailure) -> ImageMeasure {
        let formatName = arguments.last(.targetFormat) ?? "raw"
        if CreateFormat.named(formatName) == nil, creatableElsewhere.contains(formatName) {
            throw ToolFailure("Block driver '\(formatName)' does not support size measurement")
        }
        let format = try CreateRequest.format(named: formatName)
        let list = OptionList(parsing: arguments.all(.options).joined(separator: ","))
        let request: CreateRequest
        do throws(ToolFailure) {
            // The options of the file below make no image larger.
            if let wrong = list.elements.first(where: { element in !format.options.contains { $0.name == element.key || "no\($0.name)" == element.key } }) {
                throw ToolFailure("Invalid parameter '\(wrong.key)'")
            }
            request = try CreateRequest(filename: "", format: format, options: list)
        } catch {
            var failure = error
            failure.advice.append("\(StandardStreams.programName.withLock { $0 }): Invalid options for file format '\(format.name)'")
            throw failure
        }
        do throws(BlockError) {
            switch format.name {
            case "qcow2":
                if let compat = request.text("compat"), !["0.10", "1.1", "v2", "v3"].contains(compat) {
                    throw BlockError(.invalidArgument, "Invalid compatibility level: '\(compat)'")
                }
                let options = try BlockdevCreateOptionsQcow2(request, byteCount: source?.backend.length ?? size)
                // A key takes no other room than the next one, but what would not be made is not measured.
                if case .luks(let header)? = options.encrypt?.branch, let secret = header.keySecret { _ = try objects.secret(secret) }
                var kept: [MeasuredBitmap]?
                if let source { kept = try await bitmaps(of: source.node) }
                return try await QCOW2Driver.measure(options, source: source?.backend, bitmaps: kept) { progress.report($0, of: $1) }
            case CreateFormat.luks.name:
                let options = try BlockdevCreateOptionsLUKS(request, byteCount: source?.backend.length ?? size)
                if let secret = options.keySecret { _ = try objects.secret(secret) }
                return try LUKSDriver.measure(options.headerOptions, byteCount: (source?.backend.length ?? size))
            case "raw":
                let length = source?.backend.length ?? size
                guard length <= Int.max - ConvertSource.sectorSize else { throw BlockError(.tooLarge, "The image size is too large") }
                let whole = length.roundedUp(to: ConvertSource.sectorSize)
                return ImageMeasure(required: whole, fullyAllocated: whole)
            default: throw BlockError(.unsupported, "Block driver '\(format.name)' does not support size measurement")
            }
        } catch {
            throw ToolFailure(nil, error)
        }
    }

    /// Nil for an image that cannot keep any.
    private static func bitmaps(of node: BlockNode) async throws(BlockError) -> [MeasuredBitmap]? {
        let description = try await node.imageDescribing?.describeImage()
        guard node.formatName == "qcow2", description?.specific?.json["data"]?["compat"] != "0.10" else { return nil }
        return node.bitmaps.named.filter(\.isPersistent).map { MeasuredBitmap(granularity: $0.granularity, nameByteCount: ($0.name ?? "").utf8.count) }
    }
}

extension ImageMeasure {
    fileprivate var text: String {
        "required size: \(required)\nfully allocated size: \(fullyAllocated)\n" + (bitmaps.map { "bitmaps size: \($0)\n" } ?? "")
    }

    fileprivate var json: String {
        var object = JSONObject()
        object["bitmaps"] = bitmaps.map(JSONValue.integer)
        object["required"] = .integer(required)
        object["fully-allocated"] = .integer(fullyAllocated)
        return JSONValue.object(object).text(pretty: true) + "\n"
    }
}
