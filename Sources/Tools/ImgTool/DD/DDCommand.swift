import BlockGraph
import IOCore
import StrataBase
import ToolSupport

/// `dd`: copies part of an image into a new one.
enum DDCommand: ImgCommand {
    enum Key: ImageOptionKey { case help, format, imageOptions, outputFormat, forceShare, object }

    static let name = "dd"
    static let declaration = CommandDeclaration<Key>(
        name, summary: "Copy input to output with optional format conversion",
        usage: ["[-f FMT | --image-opts] [-O OUTPUT_FMT] [-U] [--object OBJDEF]", "[bs=BLOCK_SIZE] [count=BLOCKS] [skip=BLOCKS] if=INPUT of=OUTPUT"],
        options: [
            .init(.format, "f", "format", value: "FMT", help: "the format of INPUT; found out when not given"),
            .init(.imageOptions, nil, "image-opts", help: "INPUT is a list of options instead of a file name", "(not together with --format)"),
            .init(.outputFormat, "O", "output-format", value: "OUTPUT_FMT", help: "the format of OUTPUT (default: raw)"),
            .init(.forceShare, "U", "force-share", help: "open INPUT even if another process writes to it"),
            .object(.object),
        ],
        operands: [
            .init("bs=BLOCK_SIZE", help: "what count and skip count, in bytes (default: 512)"),
            .init("count=BLOCKS", help: "how far to read, from the start of INPUT (default: all)"),
            .init("skip=BLOCKS", help: "how much to leave out at the start of INPUT (default: nothing)"), .init("if=INPUT", help: "the image to read"),
            .init("of=OUTPUT", help: "the image to make; an existing file is replaced"),
        ])

    static func run(_ arguments: ParsedArguments<Key>, _ context: CommandContext) async throws(ToolFailure) -> Int32 {
        let objects = try UserObjects.make(arguments.all(.object))
        let wish = try DDOperands(arguments.operands)
        guard let input = wish.input, let output = wish.output else { throw ToolFailure("Must specify both input and output files") }
        let named = try arguments.image(input)
        let session = ImageSession(context: context.ioContext, objects: objects)
        var settings = ImageSettings()
        settings.forceShare = arguments.contains(.forceShare)
        let source = PaddedImage(try await session.open(named, settings))
        let range = wish.range(inImageOf: source.length)
        if range == nil { StandardStreams.printError("\(context.name): \(input): cannot skip to specified offset\n") }

        Interruption.leaves("'\(output)' is incomplete")
        defer { Interruption.leavesNothing() }
        let (target, isZero) = try await makeOutput(output, arguments.last(.outputFormat) ?? "raw", byteCount: range?.count ?? 0, in: session)
        let progress = ProgressReporter(.whenItTakesLong)
        try await session.closing(progress) { () async throws(ToolFailure) in
            if let range { try await copy(range, of: source, to: target, isZero: isZero, progress) }
        }
        return 0
    }

    /// - Returns: the open target, and whether it shows nothing but zeroes.
    private static func makeOutput(
        _ name: String, _ format: String, byteCount: Int, in session: ImageSession
    ) async throws(ToolFailure) -> (target: OpenImage, isZero: Bool) {
        guard DriverNames.all.contains(format) else { throw ToolFailure("Unknown file format") }
        let format = try CreateRequest.format(named: format)
        do throws(BlockError) { _ = try ImageReference(protocolOf: name) } catch { throw ToolFailure(nil, error) }
        var request = try CreateRequest(filename: name, format: format, options: OptionList())
        request.set("size", to: .size(byteCount))
        let isZero: Bool
        do throws(BlockError) { isZero = try await ImageCreation(session: session).create(request) } catch {
            throw ToolFailure("\(name): error while creating output image", error)
        }
        var settings = ImageSettings()
        settings.isReadOnly = false
        return (try await session.open(ImageArgument(name, format: format.name), settings), isZero)
    }

    /// Bytes that one request moves.
    private static let pieceSize = 1 << 20

    /// Copies what the target does not show by itself.
    private static func copy(
        _ range: Range<Int>, of source: PaddedImage, to target: OpenImage, isZero: Bool, _ progress: ProgressReporter
    ) async throws(ToolFailure) {
        let buffer = IOBuffer(byteCount: min(pieceSize, max(range.count, 1)))
        defer { withExtendedLifetime(buffer) {} }
        var position = range.lowerBound
        while position < range.upperBound {
            progress.report(position - range.lowerBound, of: range.count)
            let piece: IOVector
            do throws(BlockError) {
                let extent = try await source.extent(at: position, limit: range.upperBound - position)
                if extent.isZero, isZero {
                    position += extent.byteCount
                    continue
                }
                piece = buffer.vector(at: 0, byteCount: min(extent.byteCount, buffer.byteCount))
                try await source.read(piece, at: position)
            } catch { throw ToolFailure("error while reading from input image file", error) }
            do throws(BlockError) {
                try await target.backend.write(piece, at: GuestOffset(position - range.lowerBound), flags: target.writeFlags)
            } catch { throw ToolFailure("error while writing to output image file", error) }
            position += piece.byteCount
        }
    }
}
