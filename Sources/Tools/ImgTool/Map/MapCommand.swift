import IOCore
import StrataBase
import ToolSupport

/// `map`: which part of an image lies where.
enum MapCommand: ImgCommand {
    enum Key: ImageOptionKey { case help, format, imageOptions, startOffset, maximumLength, output, forceShare, object }

    static let name = "map"
    static let declaration = CommandDeclaration<Key>(
        name, summary: "Dump image metadata",
        usage: ["[-f FMT | --image-opts] [--start-offset OFFSET] [--max-length LENGTH]", "[--output human|json] [-U] [--object OBJDEF] FILENAME"],
        options: [
            .format(.format),
            .imageOptions(.imageOptions),
            .init(.startOffset, "s", "start-offset", value: "OFFSET", help: "where to begin, in bytes (default: 0)"),
            .init(.maximumLength, "l", "max-length", value: "LENGTH", help: "how many bytes to describe (default: all)"),
            .output(.output),
            .forceShare(.forceShare),
            .object(.object),
        ],
        operands: [.init("FILENAME", help: "the image")])

    static func run(_ arguments: ParsedArguments<Key>, _ context: CommandContext) async throws(ToolFailure) -> Int32 {
        let objects = try UserObjects.make(arguments.all(.object))
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
        let name = try context.oneImageName(arguments.operands)
        let named = try arguments.image(name)
        let session = ImageSession(context: context.ioContext, objects: objects)
        var settings = ImageSettings()
        settings.forceShare = arguments.contains(.forceShare)
        let image = try await session.open(named, settings)
        try await session.closing { () async throws(ToolFailure) in
            do throws(BlockError) { try await ImageMap(PaddedImage(image), from: start, byteCount: limit).print(output, ProgressReporter(.whenItTakesLong)) } catch { throw ToolFailure(nil, error) }
        }
        return 0
    }
}
