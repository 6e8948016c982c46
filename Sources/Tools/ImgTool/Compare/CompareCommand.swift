import IOCore
import ManagedObjects
import StrataBase
import ToolSupport

/// `compare`: whether two images have the same contents.
enum CompareCommand: ImgCommand {
    enum Key: ProgressOptionKey { case help, quiet, progress, firstFormat, secondFormat, imageOptions, strict, cache, forceShare, object }

    static let name = "compare"
    static let declaration = CommandDeclaration<Key>(
        name, summary: "Check if two images have the same contents",
        usage: ["[[-f FMT] [-F FMT] | --image-opts] [-s] [-T CACHE]", "[-p] [-q] [-U] [--object OBJDEF] FILENAME1 FILENAME2"],
        options: [
            .init(.quiet, "q", "quiet", help: "say only what goes wrong; the exit status tells the result"),
            .progress(.progress),
            .init(.firstFormat, "f", "a-format", value: "FMT", help: "the format of FILENAME1; found out when not given"),
            .init(.firstFormat, nil, "left-format", value: "FMT", help: "the same"),
            .init(.secondFormat, "F", "b-format", value: "FMT", help: "the format of FILENAME2; found out when not given"),
            .init(.secondFormat, nil, "right-format", value: "FMT", help: "the same"),
            .init(.imageOptions, nil, "image-opts", help: "the names are lists of options (not together with formats)"),
            .init(.strict, "s", "strict", help: "sizes and what is allocated have to be the same too"),
            .cache(.cache, "T"),
            .init(.forceShare, "U", "force-share", help: "open the images even if another process writes to them"),
            .object(.object),
        ],
        operands: [.init("FILENAME1, FILENAME2", help: "the images")])

    /// The exit status of everything that goes wrong before the comparison, except wrong command lines.
    private static let statusNotOpened: Int32 = 2

    static func run(_ arguments: ParsedArguments<Key>, _ context: CommandContext) async throws(ToolFailure) -> Int32 {
        let objects: ObjectRegistry
        do throws(ToolFailure) { objects = try UserObjects.make(arguments.all(.object)) } catch {
            if error == .nothingLeftToDo { throw error }
            var failure = error
            failure.status = statusNotOpened
            throw failure
        }
        guard arguments.operands.count == 2 else { throw context.usageFailure("Expecting two image file names") }
        let isQuiet = arguments.contains(.quiet)
        let progress: ProgressReporter
        let session: ImageSession
        let images: [PaddedImage]
        do throws(ToolFailure) {
            let reporter = ProgressReporter(try arguments.progressStyle(), begins: false)
            progress = reporter
            let opening = ImageSession(context: context.ioContext, objects: objects)
            session = opening
            images = try await reporter.beforehand { () async throws(ToolFailure) in
                var settings = ImageSettings()
                settings.forceShare = arguments.contains(.forceShare)
                settings.cache = try CacheMode(argument: arguments.last(.cache), "source cache option") ?? .writeback
                let isOptions = arguments.contains(.imageOptions)
                let formats = [arguments.last(.firstFormat), arguments.last(.secondFormat)]
                if isOptions, formats.contains(where: { $0 != nil }) { throw ToolFailure("--image-opts and --format are mutually exclusive") }
                var opened: [PaddedImage] = []
                for (name, format) in zip(arguments.operands, formats) {
                    opened.append(PaddedImage(try await opening.open(ImageArgument(name, isOptions: isOptions, format: format), settings)))
                }
                return opened
            }
            progress.begin()
        } catch {
            var failure = error
            failure.status = statusNotOpened
            throw failure
        }
        let verdict = await Comparison(images, names: arguments.operands, isStrict: arguments.contains(.strict), progress).run(on: context.ioContext)
        if !isQuiet { StandardStreams.print(verdict.text) }
        progress.end(succeeded: false)
        // Nothing was written: a failure to close loses nothing.
        do { try await session.close() } catch {}
        if let failure = verdict.failure { throw failure }
        return verdict.status
    }
}
