import BlockGraph
import IOCore
import StrataBase
import ToolSupport

/// `amend`: changes what an image says about itself.
enum AmendCommand: ImgCommand {
    enum Key: OptionKey { case help, quiet, progress, format, imageOptions, cache, force, options, object }

    static let declaration = CommandDeclaration<Key>(
        "amend", summary: "Update format-specific options of the image",
        usage: ["[-f FMT | --image-opts] [-t CACHE] [--force] [-p] [-q]", "[--object OBJDEF] -o OPTIONS FILENAME"],
        options: [
            .init(.quiet, "q", "quiet", help: "say nothing unless something goes wrong"),
            .progress(.progress),
            .init(.format, "f", "format", value: "FMT", help: "the image's format; found out when not given"),
            .init(.imageOptions, nil, "image-opts", help: "FILENAME is a list of options instead of a file name", "(not together with --format)"),
            .init(.cache, "t", "cache", value: "CACHE", help: "cache mode (default: writeback)"),
            .init(.force, nil, "force", help: "allow what may make data inaccessible"),
            .init(.options, "o", nil, value: "OPTIONS", help: "what to change; '-o help' lists what can be changed"),
            .init(.object, nil, "object", value: "OBJDEF", help: "an object that other options refer to"),
        ],
        operands: [.init("FILENAME", help: "the image")])

    static func run(_ arguments: ParsedArguments<Key>, _ context: CommandContext) async throws(ToolFailure) -> Int32 {
        let texts = arguments.all(.options)
        for text in texts where !OptionList.isWellFormed(text) { throw ToolFailure("Invalid option list: \(text)") }
        if texts.isEmpty { throw context.usageFailure("Must specify options (-o)") }
        let list = OptionList(parsing: texts.joined(separator: ","))
        let format = arguments.last(.format)
        if let format, list.asksForHelp {
            return StandardStreams.print(try AmendOptions.help(format: format)) ? 0 : 1
        }
        guard arguments.operands.count == 1, let name = arguments.operands.first else { throw ToolFailure("Expecting one image file name") }
        let isOptions = arguments.contains(.imageOptions)
        if isOptions && format != nil { throw ToolFailure("--image-opts and --format are mutually exclusive") }
        let isQuiet = arguments.contains(.quiet)
        let style = try ProgressReporter.Style(isWanted: arguments.contains(.progress), value: arguments.last(.progress), isQuiet: isQuiet)
        let objects = try UserObjects.make(arguments.all(.object))
        var settings = ImageSettings()
        settings.isReadOnly = false
        settings.resizes = true
        settings.cache = try CacheMode(argument: arguments.last(.cache), "cache option") ?? .writeback

        let session = ImageSession(context: context.ioContext, objects: objects)
        let image = try await session.open(name, isOptions: isOptions, format: format, settings)
        if let warning = image.probingWarning { StandardStreams.printError(warning) }
        let progress = ProgressReporter(style, isQuiet: isQuiet)
        do throws(ToolFailure) {
            guard let amending = image.node.driver as? any Amending else {
                throw ToolFailure("Format driver '\(image.node.formatName)' does not support option amendment")
            }
            if list.asksForHelp {
                StandardStreams.print(try AmendOptions.help(format: image.node.formatName))
            } else {
                let amendment = try AmendOptions.amendment(list)
                do throws(BlockError) {
                    try await amending.amend(amendment) { progress.report($0, of: $1) }
                } catch { throw ToolFailure(nil, error) }
            }
            do throws(BlockError) { try await session.close(image) } catch { throw ToolFailure(nil, error) }
        } catch {
            progress.end(succeeded: false)
            do { try await session.close() } catch {}
            throw error
        }
        progress.end(succeeded: true)
        return 0
    }
}
