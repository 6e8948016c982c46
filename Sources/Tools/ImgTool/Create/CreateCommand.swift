import IOCore
import StrataBase
import ToolSupport

/// `create`: makes an image.
enum CreateCommand: ImgCommand {
    enum Key: OptionKey { case help, quiet, format, options, backing, backingFormat, trustsBacking, object }

    static let name = "create"
    static let declaration = CommandDeclaration<Key>(
        name, summary: "Create and format new image file",
        usage: [
            "[-f FMT] [-o FMT_OPTS] [-b BACKING_FILENAME -F BACKING_FMT] [-u]", "[-q] [--object OBJDEF] FILENAME [SIZE[bkKMGTPE]]",
        ],
        options: [
            .quiet(.quiet),
            .init(.format, "f", "format", value: "FMT", help: "format of the new image (default: raw)"),
            .init(.options, "o", "options", value: "FMT_OPTS", help: "options of the format; '-o help' lists them"),
            .init(.backing, "b", "backing", value: "BACKING_FILENAME", help: "put the new image on top of this one"),
            .init(.backingFormat, "F", "backing-format", value: "BACKING_FMT", help: "the format of BACKING_FILENAME"),
            .init(.trustsBacking, "u", "backing-unsafe", help: "do not look at BACKING_FILENAME, which need not exist"),
            .object(.object),
        ],
        operands: [
            .init("FILENAME", help: "the image; an existing file is replaced"),
            .init("SIZE", help: "bytes, with a suffix for powers of 1024;", "by default that of the backing file"),
        ])

    static func run(_ arguments: ParsedArguments<Key>, _ context: CommandContext) async throws(ToolFailure) -> Int32 {
        let objects = try UserObjects.make(arguments.all(.object))
        var wish = CreateRequest.Wish(filename: arguments.operands.first ?? "")
        wish.format = arguments.last(.format) ?? "raw"
        wish.backing = arguments.last(.backing)
        wish.backingFormat = arguments.last(.backingFormat)
        wish.trustsBacking = arguments.contains(.trustsBacking)
        wish.options = arguments.all(.options)
        for text in wish.options where !OptionList.isWellFormed(text) { throw ToolFailure("Invalid option list: \(text)") }
        if wish.options.contains(where: { OptionList(parsing: $0).asksForHelp }) {
            let text = try CreateRequest.format(named: wish.format).helpText(knowsFile: !arguments.operands.isEmpty)
            return StandardStreams.print(text) ? 0 : 1
        }
        guard !arguments.operands.isEmpty else { throw context.usageFailure("Expecting image file name") }
        if arguments.operands.count > 1 { wish.size = try NumberArgument.parse(arguments.operands[1], "image size", in: 0...Int.max) }
        if arguments.operands.count > 2 { throw context.usageFailure("Unexpected argument: \(arguments.operands[2])") }

        let session = ImageSession(context: context.ioContext, objects: objects)
        Interruption.leaves("'\(wish.filename)' is incomplete")
        defer { Interruption.leavesNothing() }
        let progress = ProgressReporter(arguments.contains(.quiet) ? .silent : .whenItTakesLong)
        do throws(ToolFailure) {
            let request = try await CreateRequest(wish, in: session)
            if !arguments.contains(.quiet) { StandardStreams.print(request.announcement) }
            do throws(BlockError) { try await ImageCreation(session: session, progress: progress).create(request) } catch { throw ToolFailure(nil, error) }
        } catch {
            var failure = error
            progress.end(succeeded: false)
            failure.message = "\(wish.filename): \(failure.message)"
            throw failure
        }
        progress.end(succeeded: true)
        return 0
    }
}
