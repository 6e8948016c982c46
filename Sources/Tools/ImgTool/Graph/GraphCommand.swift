import BlockGraph
import IOCore
import StrataBase
import ToolSupport

/// `graph`: draws the nodes that an image is made of.
enum GraphCommand: ImgCommand {
    enum Key: ImageOptionKey { case help, format, imageOptions, output, forceShare, object }

    static let name = "graph"
    static let declaration = CommandDeclaration<Key>(
        name, summary: "Draw an image's backing chain and what lies below it",
        usage: ["[-f FMT | --image-opts] [--output text|dot|svg] [-U]", "[--object OBJDEF] FILENAME"],
        options: [
            .format(.format),
            .imageOptions(.imageOptions),
            .init(.output, nil, "output", value: "text|dot|svg", help: "lines of text (the default), Graphviz's language, or a picture"),
            .init(.forceShare, "U", "force-share", help: "open the images even if another process writes to them"),
            .object(.object),
        ],
        operands: [.init("FILENAME", help: "the image")])

    static func run(_ arguments: ParsedArguments<Key>, _ context: CommandContext) async throws(ToolFailure) -> Int32 {
        let objects = try UserObjects.make(arguments.all(.object))
        let output = arguments.last(.output) ?? "text"
        guard ["text", "dot", "svg"].contains(output) else { throw context.usageFailure("--output expects 'text', 'dot' or 'svg' not '\(output)'") }
        let name = try context.oneImageName(arguments.operands)
        let named = try arguments.image(name)
        let session = ImageSession(context: context.ioContext, objects: objects)
        var settings = ImageSettings()
        settings.forceShare = arguments.contains(.forceShare)
        let image = try await session.open(named, settings)
        let drawing = GraphDrawing(image.node)
        let text = output == "dot" ? drawing.dot : output == "svg" ? drawing.svg : drawing.text
        // Nothing was written.
        do throws(BlockError) { try await session.close() } catch {}
        guard StandardStreams.print(text) else { throw ToolFailure("Could not write to standard output") }
        return 0
    }
}
