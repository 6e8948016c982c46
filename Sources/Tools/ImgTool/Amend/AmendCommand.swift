import BlockEncryption
import BlockGraph
import IOCore
import ManagedObjects
import StrataBase
import ToolSupport

/// `amend`: changes what an image says about itself.
enum AmendCommand: ImgCommand {
    enum Key: ImageOptionKey, ProgressOptionKey { case help, quiet, progress, format, imageOptions, cache, force, options, object }

    static let name = "amend"
    static let declaration = CommandDeclaration<Key>(
        name, summary: "Update format-specific options of the image",
        usage: ["[-f FMT | --image-opts] [-t CACHE] [--force] [-p] [-q]", "[--object OBJDEF] -o OPTIONS FILENAME"],
        options: [
            .quiet(.quiet),
            .progress(.progress),
            .format(.format),
            .imageOptions(.imageOptions),
            .cache(.cache),
            .init(.force, nil, "force", help: "allow what may make data inaccessible"),
            .init(.options, "o", "options", value: "OPTIONS", help: "what to change; '-o help' lists what can be changed"),
            .object(.object),
        ],
        operands: [.init("FILENAME", help: "the image")])

    static func run(_ arguments: ParsedArguments<Key>, _ context: CommandContext) async throws(ToolFailure) -> Int32 {
        let objects = try UserObjects.make(arguments.all(.object))
        let texts = arguments.all(.options)
        for text in texts where !OptionList.isWellFormed(text) { throw ToolFailure("Invalid option list: \(text)") }
        if texts.isEmpty { throw context.usageFailure("Must specify options (-o)") }
        let list = OptionList(parsing: texts.joined(separator: ","))
        if let format = arguments.last(.format), list.asksForHelp {
            return StandardStreams.print(try AmendOptions.help(format: format)) ? 0 : 1
        }
        let progress = ProgressReporter(try arguments.progressStyle(), begins: false)
        let session = ImageSession(context: context.ioContext, objects: objects)
        let (name, image) = try await progress.beforehand { () async throws(ToolFailure) in
            guard arguments.operands.count == 1, let name = arguments.operands.first else { throw ToolFailure("Expecting one image file name") }
            var settings = ImageSettings()
            settings.isReadOnly = false
            settings.resizes = true
            settings.cache = try CacheMode(argument: arguments.last(.cache), "cache option") ?? .writeback
            return (name, try await session.open(try arguments.image(name), settings))
        }
        Interruption.leaves("amending '\(name)' is incomplete: amend it again")
        defer { Interruption.leavesNothing() }
        try await session.closing(progress) { () async throws(ToolFailure) in
            if list.asksForHelp {
                StandardStreams.print(try AmendOptions.help(format: image.node.formatName))
            } else {
                let options = try AmendOptions(list, format: image.node.formatName)
                progress.begin()
                do throws(BlockError) {
                    try await amend(image.node.driver, options, isForced: arguments.contains(.force), objects, progress)
                } catch { throw ToolFailure(nil, error) }
            }
        }
        return 0
    }

    /// Keys first: they are what can be refused without the image knowing.
    private static func amend(
        _ driver: any BlockDriver, _ options: AmendOptions, isForced: Bool, _ objects: ObjectRegistry, _ progress: ProgressReporter
    ) async throws(BlockError) {
        if let wish = options.keySlots, let driver = driver as? any KeySlotAmending {
            try await driver.changeKeySlots(
                try KeySlotChange(wish, isForced: isForced) { id throws(BlockError) in Array(try objects.password(id).utf8) })
        }
        if let amendment = options.image, let driver = driver as? any Amending {
            try await driver.amend(amendment) { progress.report($0, of: $1) }
        }
    }
}
