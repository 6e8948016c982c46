import BlockGraph
import IOCore
import StrataBase
import ToolSupport

/// `bench`: how many requests an image takes in how long.
enum BenchCommand: ImgCommand {
    enum Key: ImageOptionKey {
        case help, quiet, format, imageOptions, cache, count, depth, bufferSize, offset, stepSize, aio, native, write, pattern, flushInterval
        case noDrain, forceShare, object
    }

    static let name = "bench"
    static let declaration = CommandDeclaration<Key>(
        name, summary: "Run simple image benchmark",
        usage: [
            "[-f FMT | --image-opts] [-t CACHE] [-c COUNT] [-d DEPTH]", "[-o OFFSET] [-s BUFFER_SIZE] [-S STEP_SIZE] [-i AIO] [-n]",
            "[-w [--pattern PATTERN] [--flush-interval INTERVAL [--no-drain]]]", "[-q] [-U] FILENAME",
        ],
        options: [
            .init(.quiet, "q", "quiet", help: "do not warn").ownWord,
            .format(.format),
            .imageOptions(.imageOptions),
            .cache(.cache),
            .init(.count, "c", "count", value: "COUNT", help: "requests in all (default: 75000)"),
            .init(.bufferSize, "s", "buffer-size", value: "BUFFER_SIZE", help: "bytes of each request (default: 4k)"),
            .init(.depth, "d", "depth", value: "DEPTH", help: "requests under way at once (default: 64)"),
            .init(.offset, "o", "offset", value: "OFFSET", help: "where the first request starts (default: 0)"),
            .init(.stepSize, "S", "step-size", value: "STEP_SIZE", help: "how far on the next one starts (default: the buffer size)"),
            .init(.aio, "i", "aio", value: "AIO", help: "how files are accessed: threads, native or io_uring"),
            .init(.native, "n", "native", help: "the same as -i native"),
            .init(.write, "w", "write", help: "write instead of reading"),
            .init(.pattern, nil, "pattern", value: "PATTERN", help: "the byte to write (default: 0)"),
            .init(.flushInterval, nil, "flush-interval", value: "FLUSH_INTERVAL", help: "flush after so many writes"),
            .init(.noDrain, nil, "no-drain", help: "flush while writes are under way"),
            .forceShare(.forceShare),
            .object(.object).ownWord,
        ],
        operands: [.init("FILENAME", help: "the image")])

    static func run(_ arguments: ParsedArguments<Key>, _ context: CommandContext) async throws(ToolFailure) -> Int32 {
        let objects = try UserObjects.make(arguments.all(.object))
        var settings = ImageSettings()
        settings.isReadOnly = !arguments.contains(.write)
        settings.forceShare = arguments.contains(.forceShare)
        // Like qemu-img, complain about values in their order, and then about what depends on several of them.
        let plan = try BenchPlan(arguments)
        settings.aio = plan.aio
        if let cache = plan.cache { settings.cache = cache }
        guard arguments.operands.count == 1, let name = arguments.operands.first else { throw context.usageFailure("Expecting one image file name") }
        try plan.check()
        let named = try arguments.image(name)

        let session = ImageSession(context: context.ioContext, objects: objects)
        let image = try await session.open(named, settings)
        StandardStreams.print(plan.announcement)
        let run = BenchRun(plan, on: image.backend, writeFlags: image.writeFlags, context: context.ioContext)
        let progress = ProgressReporter(arguments.contains(.quiet) ? .silent : .whenItTakesLong)
        let start = ContinuousClock.now
        do throws(BlockError) {
            try await progress.watching(on: context.ioContext, { run.position }) { () async throws(BlockError) in try await run.run() }
        } catch {
            progress.end(succeeded: false)
            do { try await session.close() } catch {}
            throw ToolFailure("Failed request: \(BlockError.text(ofErrno: error.errno))")
        }
        let elapsed = start.duration(to: .now)
        progress.end(succeeded: true)
        StandardStreams.print(BenchPlan.result(seconds: Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) / 1e18))
        do throws(BlockError) { try await session.close(image) } catch { throw ToolFailure(nil, error) }
        return 0
    }
}
