import IOCore
import QAPIRuntime
import StrataBase
import ToolSupport

/// `info`: what an image says about itself. Opens nothing but the image, unless the whole chain is asked for.
enum InfoCommand: ImgCommand {
    enum Key: OptionKey { case help, format, imageOptions, backingChain, forceShare, object, output }

    static let declaration = CommandDeclaration<Key>(
        "info", summary: "Display information about image",
        usage: ["[-f FMT | --image-opts] [-b] [-U] [--object OBJDEF]", "[--output human|json] FILENAME"],
        options: [
            .init(.format, "f", "format", value: "FMT", help: "the image's format; found out when not given"),
            .init(.imageOptions, nil, "image-opts", help: "FILENAME is a list of options instead of a file name", "(not together with --format)"),
            .init(.backingChain, "b", "backing-chain", help: "tell about the backing files too"),
            .init(.forceShare, "U", "force-share", help: "open the image even if another process writes to it"),
            .init(.output, nil, "output", value: "human|json", help: "output for people (the default) or for programs"),
            .init(.object, nil, "object", value: "OBJDEF", help: "an object that other options refer to"),
        ],
        operands: [.init("FILENAME", help: "the image")])

    static func run(_ arguments: ParsedArguments<Key>, _ context: CommandContext) async throws(ToolFailure) -> Int32 {
        let output = try context.outputFormat(arguments.last(.output))
        guard arguments.operands.count == 1, let name = arguments.operands.first else {
            throw context.usageFailure("Expecting one image file name")
        }
        let isOptions = arguments.contains(.imageOptions)
        let format = arguments.last(.format)
        if isOptions && format != nil { throw ToolFailure("--image-opts and --format are mutually exclusive") }
        let objects = try UserObjects.make(arguments.all(.object))

        var settings = ImageSettings()
        settings.opensChain = false
        settings.forceShare = arguments.contains(.forceShare)
        let chain = try await InfoCollector(settings, objects).chain(
            from: name, isOptions: isOptions, format: format, follows: arguments.contains(.backingChain))
        let text: String
        switch output {
        case .human: text = chain.map { $0.text() }.joined(separator: "\n")
        case .json:
            let json = arguments.contains(.backingChain) ? JSONValue.array(chain.map(\.json)) : chain.first?.json ?? .null
            text = json.text(pretty: true) + "\n"
        }
        guard StandardStreams.print(text) else { throw ToolFailure("Could not write to standard output") }
        return 0
    }
}
