import IOCore
import StrataBase
import ToolSupport

/// `commit`: writes what an image holds into its backing file.
enum CommitCommand: ImgCommand {
    enum Key: OptionKey { case help, quiet, progress, format, imageOptions, cache, drop, base, rate, object }

    static let declaration = CommandDeclaration<Key>(
        "commit", summary: "Commit image to its backing file",
        usage: ["[-f FMT | --image-opts] [-t CACHE_MODE] [-b BASE_IMG] [-d]", "[-r RATE] [-p] [-q] [--object OBJDEF] FILENAME"],
        options: [
            .init(.quiet, "q", "quiet", help: "say nothing unless something goes wrong"),
            .progress(.progress),
            .init(.format, "f", "format", value: "FMT", help: "the image's format; found out when not given"),
            .init(.imageOptions, nil, "image-opts", help: "FILENAME is a list of options instead of a file name", "(not together with --format)"),
            .init(.cache, "t", "cache", value: "CACHE_MODE", help: "cache mode (default: writeback)"),
            .init(.drop, "d", "drop", help: "do not empty FILENAME afterwards"),
            .init(.base, "b", "base", value: "BASE_IMG", help: "commit to this image of the chain, not to the next one; implies --drop"),
            .init(.rate, "r", "rate", value: "RATE", help: "bytes per second at most"),
            .init(.object, nil, "object", value: "OBJDEF", help: "an object that other options refer to"),
        ],
        operands: [.init("FILENAME", help: "the image")])

    static func run(_ arguments: ParsedArguments<Key>, _ context: CommandContext) async throws(ToolFailure) -> Int32 {
        var rate: Int?
        if let text = arguments.last(.rate) { rate = try RateLimiter.rate(text) }
        guard arguments.operands.count == 1, let name = arguments.operands.first else { throw context.usageFailure("Expecting one image file name") }
        let isOptions = arguments.contains(.imageOptions)
        let format = arguments.last(.format)
        if isOptions && format != nil { throw ToolFailure("--image-opts and --format are mutually exclusive") }
        let isQuiet = arguments.contains(.quiet)
        let style = try ProgressReporter.Style(isWanted: arguments.contains(.progress), value: arguments.last(.progress), isQuiet: isQuiet)
        let objects = try UserObjects.make(arguments.all(.object))
        var settings = ImageSettings()
        settings.isReadOnly = false
        settings.unmaps = true
        settings.cache = try CacheMode(argument: arguments.last(.cache), "cache option") ?? .writeback

        let session = ImageSession(context: context.ioContext, objects: objects)
        let image = try await session.open(name, isOptions: isOptions, format: format, settings)
        if let warning = image.probingWarning { StandardStreams.printError(warning) }
        let progress = ProgressReporter(style, isQuiet: isQuiet)
        do throws(ToolFailure) {
            let base = try CommitBase.find(arguments.last(.base), below: image.node, named: name)
            do throws(BlockError) {
                try await CommitRun(image, into: base, in: session, rate: rate, progress).run(emptying: !arguments.contains(.drop) && !arguments.contains(.base))
                try await session.close(image)
            } catch { throw ToolFailure(nil, error) }
        } catch {
            progress.end(succeeded: false)
            do { try await session.close() } catch {}
            throw error
        }
        progress.end(succeeded: true)
        if !arguments.contains(.quiet) { StandardStreams.print("Image committed.\n") }
        return 0
    }
}
