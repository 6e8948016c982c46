import IOCore
import QAPIRuntime
import StrataBase
import ToolSupport

/// `info`: what an image says about itself. Opens nothing but the image, unless the whole chain is asked for.
enum InfoCommand: ImgCommand {
    enum Key: ImageOptionKey, LimitsOptionKey { case help, format, imageOptions, backingChain, forceShare, object, output, limitsMemory, limitsTime }

    static let name = "info"
    static let declaration = CommandDeclaration<Key>(
        name, summary: "Display information about image",
        usage: ["[-f FMT | --image-opts] [-b] [-U] [--object OBJDEF]", "[--output human|json] [--limits-memory SIZE] [--limits-time SECONDS] FILENAME"],
        options: [
            .format(.format),
            .imageOptions(.imageOptions),
            .init(.backingChain, "b", "backing-chain", help: "tell about the backing files too"),
            .forceShare(.forceShare),
            .output(.output),
            .object(.object),
            .limitsMemory,
            .limitsTime,
        ],
        operands: [.init("FILENAME", help: "the image")])

    static func run(_ arguments: ParsedArguments<Key>, _ context: CommandContext) async throws(ToolFailure) -> Int32 {
        let objects = try UserObjects.make(arguments.all(.object))
        let output = try context.outputFormat(arguments.last(.output))
        let name = try context.oneImageName(arguments.operands)
        let named = try arguments.image(name)

        var settings = ImageSettings()
        settings.opensChain = false
        settings.forceShare = arguments.contains(.forceShare)
        let chain = try await InfoCollector(settings, objects).chain(
            from: named, follows: arguments.contains(.backingChain))
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
