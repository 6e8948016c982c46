import IOCore
import StrataBase
import ToolSupport

/// `commit`: writes what an image holds into its backing file.
enum CommitCommand: ImgCommand {
    enum Key: ImageOptionKey, ProgressOptionKey { case help, quiet, progress, format, imageOptions, cache, drop, base, rate, object }

    static let name = "commit"
    static let declaration = CommandDeclaration<Key>(
        name, summary: "Commit image to its backing file",
        usage: ["[-f FMT | --image-opts] [-t CACHE] [-b BASE_IMG] [-d]", "[-r RATE] [-p] [-q] [--object OBJDEF] FILENAME"],
        options: [
            .quiet(.quiet),
            .progress(.progress),
            .format(.format),
            .imageOptions(.imageOptions),
            .cache(.cache),
            .init(.drop, "d", "drop", help: "do not empty FILENAME afterwards"),
            .init(.base, "b", "base", value: "BASE_IMG", help: "commit to this image of the chain, not to the next one; implies --drop"),
            .init(.rate, "r", "rate", value: "RATE", help: "bytes per second at most"),
            .object(.object),
        ],
        operands: [.init("FILENAME", help: "the image")])

    static func run(_ arguments: ParsedArguments<Key>, _ context: CommandContext) async throws(ToolFailure) -> Int32 {
        let objects = try UserObjects.make(arguments.all(.object))
        var rate: Int?
        if let text = arguments.last(.rate) { rate = try RateLimiter.rate(text) }
        let name = try context.oneImageName(arguments.operands)
        let style = try arguments.progressStyle()
        var settings = ImageSettings()
        settings.isReadOnly = false
        settings.unmaps = true
        settings.cache = try CacheMode(argument: arguments.last(.cache), "cache option") ?? .writeback
        let named = try arguments.image(name)

        let session = ImageSession(context: context.ioContext, objects: objects)
        let image = try await session.open(named, settings)
        let progress = ProgressReporter(style)
        Interruption.leaves("'\(name)' still has all of its data: commit it again")
        defer { Interruption.leavesNothing() }
        try await session.closing(progress) { () async throws(ToolFailure) in
            let base = try CommitBase.find(arguments.last(.base), below: image.node, named: name)
            do throws(BlockError) {
                try await CommitRun(image, into: base, in: session, rate: rate, progress).run(emptying: !arguments.contains(.drop) && !arguments.contains(.base))
            } catch { throw ToolFailure(nil, error) }
        }
        if !arguments.contains(.quiet) { StandardStreams.print("Image committed.\n") }
        return 0
    }
}
