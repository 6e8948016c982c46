import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import ToolSupport

/// `resize`: makes an image larger or smaller.
enum ResizeCommand: ImgCommand {
    enum Key: ImageOptionKey { case help, quiet, format, imageOptions, shrink, preallocation, object }

    static let name = "resize"
    static let declaration: CommandDeclaration<Key> = {
        var declaration = CommandDeclaration<Key>(
            name, summary: "Resize the image to the new size",
            usage: ["[-f FMT | --image-opts] [--preallocation PREALLOC] [--shrink]", "[--object OBJECTDEF] [-q] FILENAME [+-]SIZE[bkKMGTPE]"],
            options: [
                .quiet(.quiet),
                .format(.format),
                .imageOptions(.imageOptions),
                .init(.shrink, nil, "shrink", help: "the image may become smaller, what lies beyond its end is lost"),
                .init(.preallocation, nil, "preallocation", value: "PREALLOC", help: "how the new part is allocated: off, metadata, falloc or full"),
                .object(.object),
            ],
            operands: [
                .init("FILENAME", help: "the image"),
                .init("[+-]SIZE", help: "the new size, or by how much to grow or shrink; bytes,", "with a suffix for powers of 1024"),
            ])
        declaration.hasNegativeOperand = true
        return declaration
    }()

    static func run(_ arguments: ParsedArguments<Key>, _ context: CommandContext) async throws(ToolFailure) -> Int32 {
        let objects = try UserObjects.make(arguments.all(.object))
        let isQuiet = arguments.contains(.quiet)
        let word = arguments.last(.preallocation) ?? "off"
        guard let preallocation = PreallocMode(rawValue: word) else { throw ToolFailure("Invalid preallocation mode '\(word)'") }
        guard arguments.operands.count >= 2 else { throw context.usageFailure("Expecting image file name and size") }
        guard arguments.operands.count == 2 else { throw context.usageFailure("Extra argument(s) in command line") }
        let named = try arguments.image(arguments.operands[0])
        let size = try SizeChange(arguments.operands[1])

        let session = ImageSession(context: context.ioContext, objects: objects)
        var settings = ImageSettings()
        settings.isReadOnly = false
        settings.resizes = true
        let image = try await session.open(named, settings)
        Interruption.leaves("resizing '\(named.text)' is incomplete: resize it again")
        defer { Interruption.leavesNothing() }
        let progress = ProgressReporter(isQuiet ? .silent : .whenItTakesLong)
        try await session.closing(progress) { () async throws(ToolFailure) in
            let current = image.backend.length.roundedUp(to: ConvertSource.sectorSize)
            guard let total = size.applied(to: current), total > 0 else { throw ToolFailure("New image size must be positive") }
            if total <= current, preallocation != .off { throw ToolFailure("Preallocation can only be used for growing images") }
            if total < current, !arguments.contains(.shrink) {
                throw ToolFailure("Use the --shrink option to perform a shrink operation.", advice: ["\(context.name): warning: \(shrinkWarning)"])
            }
            let file = image.node.filename ?? ""
            let taken = HostFile.allocatedSize(ofFileNamed: file) ?? 0
            do throws(BlockError) {
                // What is preallocated shows in the room that the file takes.
                try await progress.watching(on: context.ioContext, { ((HostFile.allocatedSize(ofFileNamed: file) ?? 0) - taken, total - current) }) {
                    () async throws(BlockError) in try await image.backend.resize(to: total, preallocation: preallocation)
                }
            } catch { throw ToolFailure(nil, error) }
        }
        if !isQuiet { StandardStreams.print("Image resized.\n") }
        return 0
    }

    private static let shrinkWarning = """
        Shrinking an image will delete all data beyond the shrunken image's end. Before performing such an operation, make sure there is no important data there.
        """
}
