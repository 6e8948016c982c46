import BlockGraph
import IOCore
import StrataBase
import ToolSupport

/// `rebase`: puts an image on another backing file, or on none.
enum RebaseCommand: ImgCommand {
    enum Key: ImageOptionKey, ProgressOptionKey {
        case help, quiet, progress, format, imageOptions, cache, backing, backingFormat, backingCache, unsafe, compress, forceShare, object
    }

    static let name = "rebase"
    static let declaration = CommandDeclaration<Key>(
        name, summary: "Change backing file of the image",
        usage: [
            "[-f FMT | --image-opts] [-t CACHE] [-q] [-U] [-p]", "[-b BACKING_FILENAME [-F BACKING_FMT] [-T BACKING_CACHE]] [-u]",
            "[--object OBJDEF] [-c] FILENAME",
        ],
        options: [
            .quiet(.quiet),
            .progress(.progress),
            .format(.format),
            .imageOptions(.imageOptions),
            .init(.cache, "t", "cache", value: "CACHE", help: "cache mode of FILENAME (default: writeback)"),
            .init(.backing, "b", "backing", value: "BACKING_FILENAME", help: "the new backing file, relative to FILENAME;", "an empty name for none"),
            .init(.backingFormat, "F", "backing-format", value: "BACKING_FMT", help: "the format of BACKING_FILENAME"),
            .init(.backingCache, "T", "backing-cache", value: "CACHE", help: "cache mode of the backing files (default: writeback)"),
            .init(.unsafe, "u", "backing-unsafe", help: "change only the name; look at no backing file"),
            .init(.compress, "c", "compress", help: "store compressed what is copied from the old backing file"),
            .init(.forceShare, "U", "force-share", help: "open the backing files even if another process writes to them"),
            .object(.object),
        ],
        operands: [.init("FILENAME", help: "the image")])

    static func run(_ arguments: ParsedArguments<Key>, _ context: CommandContext) async throws(ToolFailure) -> Int32 {
        let objects = try UserObjects.make(arguments.all(.object))
        let name = try context.oneImageName(arguments.operands)
        let isUnsafe = arguments.contains(.unsafe)
        let backing = arguments.last(.backing)
        if !isUnsafe && backing == nil { throw context.usageFailure("Must specify backing file (-b) or use unsafe mode (-u)") }
        let progress = ProgressReporter(try arguments.progressStyle())
        let session = ImageSession(context: context.ioContext, objects: objects)
        var backingSettings = ImageSettings()
        backingSettings.forceShare = arguments.contains(.forceShare)
        let (image, backingCache) = try await progress.beforehand { () async throws(ToolFailure) in
            var settings = ImageSettings()
            settings.isReadOnly = false
            settings.opensChain = !isUnsafe
            settings.cache = try CacheMode(argument: arguments.last(.cache), "cache option") ?? .writeback
            let backingCache = try CacheMode(argument: arguments.last(.backingCache), "source cache option") ?? .writeback
            return (try await session.open(try arguments.image(name), settings), backingCache)
        }
        backingSettings.cache = backingCache
        Interruption.leaves("'\(name)' still has its old backing file: rebase it again")
        defer { Interruption.leavesNothing() }
        try await session.closing(progress) { () async throws(ToolFailure) in
            var rebase = Rebase(image, onto: backing ?? "", format: arguments.last(.backingFormat), in: session, progress)
            rebase.compresses = arguments.contains(.compress)
            try await rebase.run(isUnsafe: isUnsafe, backingSettings)
        }
        return 0
    }
}
