import BlockGraph
import IOCore
import QAPIRuntime
import StrataBase
import ToolSupport

/// `check`: whether an image's metadata is consistent.
enum CheckCommand: ImgCommand {
    enum Key: ImageOptionKey, LimitsOptionKey { case help, quiet, format, imageOptions, cache, forceShare, output, repair, object, limitsMemory, limitsTime }

    static let name = "check"
    static let declaration = CommandDeclaration<Key>(
        name, summary: "Check basic image integrity",
        usage: ["[-f FMT | --image-opts] [-T CACHE] [-r leaks|all] [-U]", "[--output human|json] [--object OBJDEF]", "[--limits-memory SIZE] [--limits-time SECONDS] FILENAME"],
        options: [
            .init(.quiet, "q", "quiet", help: "say only what is wrong"),
            .format(.format),
            .imageOptions(.imageOptions),
            .cache(.cache, "T"),
            .forceShare(.forceShare),
            .output(.output),
            .init(.repair, "r", "repair", value: "leaks|all", help: "repair what is found; opens the image for writing"),
            .object(.object),
            .limitsMemory,
            .limitsTime,
        ],
        operands: [.init("FILENAME", help: "the image")])

    /// The exit status that says that the format cannot be checked.
    private static let statusUnsupported: Int32 = 63

    static func limits(_ arguments: ParsedArguments<Key>) throws(ToolFailure) -> ResourceLimits {
        let limits = try ResourceLimits(arguments)
        if arguments.contains(.repair), limits != ResourceLimits() { throw ToolFailure("--limits-memory and --limits-time cannot be used with --repair, which has to come to its end") }
        return limits
    }

    static func run(_ arguments: ParsedArguments<Key>, _ context: CommandContext) async throws(ToolFailure) -> Int32 {
        let objects = try UserObjects.make(arguments.all(.object))
        let output = try context.outputFormat(arguments.last(.output))
        var repair: CheckRepair = []
        switch arguments.last(.repair) {
        case nil: break
        case "leaks"?: repair = [.leaks]
        case "all"?: repair = [.leaks, .errors]
        case let word?: throw context.usageFailure("--repair (-r) expects 'leaks' or 'all' not '\(word)'")
        }
        let name = try context.oneImageName(arguments.operands)
        let named = try arguments.image(name)

        var settings = ImageSettings()
        settings.opensChain = false
        settings.isReadOnly = repair.isEmpty
        settings.forceShare = arguments.contains(.forceShare)
        settings.resizes = !repair.isEmpty
        settings.cache = try CacheMode(argument: arguments.last(.cache), "source cache option") ?? .writeback
        let isQuiet = arguments.contains(.quiet)
        let session = ImageSession(context: context.ioContext, objects: objects)
        let image = try await session.open(named, settings)
        let progress = ProgressReporter(isQuiet ? .silent : .whenItTakesLong)
        if !repair.isEmpty { Interruption.leaves("the repair of '\(name)' is incomplete: repair it again") }
        defer { Interruption.leavesNothing() }
        let summary: CheckSummary
        do throws(BlockError) {
            summary = try await check(image, named: name, repair: repair, isQuiet: isQuiet || output == .json, progress)
            try await session.close(image)
        } catch {
            // Closing must not hide what made the check fail.
            do { try await session.close() } catch {}
            progress.end(succeeded: false)
            throw ToolFailure(error.code == .unsupported ? nil : "Check failed", error, status: error.code == .unsupported ? statusUnsupported : 1)
        }
        progress.end(succeeded: true)
        if !isQuiet {
            StandardStreams.print(output == .json ? summary.json.text(pretty: true) + "\n" : summary.text)
        }
        return summary.status
    }

    private static func check(_ image: OpenImage, named name: String, repair: CheckRepair, isQuiet: Bool, _ progress: ProgressReporter) async throws(BlockError) -> CheckSummary {
        guard let checking = image.node.checking else {
            throw BlockError(.unsupported, "This image format does not support checks")
        }
        let note: @Sendable (Int, Int) -> Void = { progress.report($0, of: $1) }
        var report = try await checking.check(repair: repair, progress: note)
        // What was found and repaired goes to standard output as it happens in QEMU, findings to standard error.
        for message in report.messages { StandardStreams.printError(message + "\n") }
        if report.corruptionsFixed > 0 || report.leaksFixed > 0 {
            let (leaks, corruptions) = (report.leaksFixed, report.corruptionsFixed)
            if !isQuiet {
                StandardStreams.print(
                    "The following inconsistencies were found and repaired:\n\n    \(leaks) leaked clusters\n    \(corruptions) corruptions\n\n"
                        + "Double checking the fixed image now...\n")
            }
            report = try await checking.check(repair: [], progress: note)
            report.leaksFixed = leaks
            report.corruptionsFixed = corruptions
        }
        var summary = CheckSummary(filename: name, format: image.node.formatName)
        summary.checkErrors = report.checkErrors
        summary.corruptions = report.corruptions
        summary.leaks = report.leaks
        summary.corruptionsFixed = report.corruptionsFixed
        summary.leaksFixed = report.leaksFixed
        summary.imageEndOffset = report.imageEndOffset ?? 0
        summary.totalClusters = report.totalClusters ?? 0
        summary.allocatedClusters = report.allocatedClusters ?? 0
        summary.fragmentedClusters = report.fragmentedClusters ?? 0
        summary.compressedClusters = report.compressedClusters ?? 0
        return summary
    }
}
