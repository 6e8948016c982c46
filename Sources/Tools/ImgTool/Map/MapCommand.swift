import IOCore
import StrataBase
import ToolSupport

/// `map`: which part of an image lies where.
enum MapCommand: ImgCommand {
    enum Key: OptionKey { case help, format, imageOptions, startOffset, maximumLength, output, forceShare, object }

    static let declaration = CommandDeclaration<Key>(
        "map", summary: "Dump image metadata",
        usage: ["[-f FMT | --image-opts] [--start-offset OFFSET] [--max-length LENGTH]", "[--output human|json] [-U] [--object OBJDEF] FILENAME"],
        options: [
            .init(.format, "f", "format", value: "FMT", help: "the image's format; found out when not given"),
            .init(.imageOptions, nil, "image-opts", help: "FILENAME is a list of options instead of a file name", "(not together with --format)"),
            .init(.startOffset, "s", "start-offset", value: "OFFSET", help: "where to begin, in bytes (default: 0)"),
            .init(.maximumLength, "l", "max-length", value: "LENGTH", help: "how many bytes to describe (default: all)"),
            .init(.output, nil, "output", value: "human|json", help: "output for people (the default) or for programs"),
            .init(.forceShare, "U", "force-share", help: "open the image even if another process writes to it"),
            .init(.object, nil, "object", value: "OBJDEF", help: "an object that other options refer to"),
        ],
        operands: [.init("FILENAME", help: "the image")])

    static func run(_ arguments: ParsedArguments<Key>, _ context: CommandContext) async throws(ToolFailure) -> Int32 {
        var start = 0
        var limit: Int?
        var output = OutputFormat.human
        for option in arguments.occurrences {
            switch option.key {
            case .output: output = try context.outputFormat(option.value)
            case .startOffset: start = try NumberArgument.parse(option.value ?? "", "start offset", in: 0...Int.max)
            case .maximumLength: limit = try NumberArgument.parse(option.value ?? "", "max length", in: 0...Int.max)
            case .help, .format, .imageOptions, .forceShare, .object: break
            }
        }
        guard arguments.operands.count == 1, let name = arguments.operands.first else { throw context.usageFailure("Expecting one image file name") }
        let isOptions = arguments.contains(.imageOptions)
        let format = arguments.last(.format)
        if isOptions && format != nil { throw ToolFailure("--image-opts and --format are mutually exclusive") }
        let session = ImageSession(context: context.ioContext, objects: try UserObjects.make(arguments.all(.object)))
        var settings = ImageSettings()
        settings.forceShare = arguments.contains(.forceShare)
        let image = try await session.open(name, isOptions: isOptions, format: format, settings)
        do throws(BlockError) {
            try await ImageMap(PaddedImage(image), from: start, byteCount: limit).print(output)
            try await session.close(image)
        } catch {
            // What went wrong first is what the user needs to know.
            do { try await session.close() } catch {}
            throw ToolFailure(nil, error)
        }
        return 0
    }
}
