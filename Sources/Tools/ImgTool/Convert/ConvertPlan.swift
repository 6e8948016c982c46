import BlockCopy
import StrataBase
import ToolSupport

/// What `convert` is asked to do, checked as far as that is possible without opening anything.
struct ConvertPlan: Sendable {
    var sources: [String] = []
    var target = ""
    var sourceFormat: String?
    var sourcesAreOptions = false
    var sourceCache = CacheMode.writeback
    var forceShare = false
    var targetFormat = "raw"
    var targetFormatIsGiven = false
    var targetIsOptions = false
    /// What `-t` says; looked at when the sources are open, as qemu-img does.
    var targetCache: String?
    var targetOptions: [String] = []
    var backing: String?
    var backingFormat: String?
    var createsTarget = true
    var targetIsZero = false
    var progress = ProgressReporter.Style.whenItTakesLong
    var copy = CopySettings()
    var compresses = false
    /// Whether the data may be written in any order.
    var isUnordered = false
    /// Bytes per second; nil for as fast as possible.
    var rate: Int?
    /// Nil for the present state.
    var snapshot: SnapshotChoice.Wish?
    var salvage: Salvage?
    var copiesBitmaps = false
    var skipsBrokenBitmaps = false

    init(_ arguments: ParsedArguments<ConvertCommand.Key>) throws(ToolFailure) {
        var sparseIsGiven = false
        for option in arguments.occurrences {
            let value = option.value ?? ""
            switch option.key {
            case .sourceFormat: sourceFormat = value
            case .sourceImageOptions: sourcesAreOptions = true
            case .sourceCache:
                sourceCache = try CacheMode(argument: value, "source cache option") ?? sourceCache
            case .targetFormat: (targetFormat, targetFormatIsGiven) = (value, true)
            case .targetImageOptions: targetIsOptions = true
            case .targetOptions:
                guard OptionList.isWellFormed(value) else { throw ToolFailure("Invalid option list: \(value)") }
                targetOptions.append(value)
            case .targetCache:
                targetCache = value
            case .backing: backing = value
            case .backingFormat: backingFormat = value
            case .noCreate: createsTarget = false
            case .targetIsZero: targetIsZero = true
            case .sparseSize: (copy.sparseUnit, sparseIsGiven) = (try Self.sparseSize(value), true)
            case .forceShare: forceShare = true
            case .rate: rate = try RateLimiter.rate(value)
            case .parallel: copy.workers = try NumberArgument.parse(value, "number of coroutines", in: 1...16)
            case .outOfOrder: isUnordered = true
            case .compress: compresses = true
            case .snapshot: snapshot = try SnapshotChoice.Wish(value)
            case .bitmaps: copiesBitmaps = true
            case .skipBrokenBitmaps: skipsBrokenBitmaps = true
            case .quiet, .progress, .salvage, .copyOffload, .object, .help: break
            }
        }
        progress = try arguments.progressStyle()
        if arguments.contains(.skipBrokenBitmaps) && !arguments.contains(.bitmaps) {
            throw ToolFailure("Use of --skip-broken-bitmaps requires --bitmaps")
        }
        if arguments.contains(.copyOffload) {
            if arguments.contains(.compress) { throw ToolFailure("Cannot enable copy offloading when -c is used") }
            if sparseIsGiven { throw ToolFailure("Cannot enable copy offloading when -S is used") }
            if arguments.contains(.salvage) { throw ToolFailure("Cannot use copy offloading in salvaging mode") }
        }
        // Sharing blocks costs nothing. Only -C has the kernel copy, because then nobody looks for zeroes in the data.
        copy.usesCopyRange = !compresses && !sparseIsGiven && !arguments.contains(.salvage)
        copy.sharesOnly = !arguments.contains(.copyOffload)
        if createsTarget {
            if targetIsOptions { throw ToolFailure("--target-image-opts requires use of -n flag") }
            if targetIsZero { throw ToolFailure("--target-is-zero requires use of -n flag") }
        } else if !targetOptions.isEmpty {
            throw ToolFailure("-o has no effect when skipping image creation")
        }
        guard arguments.operands.count >= 2, let last = arguments.operands.last else { throw ToolFailure("Must specify image file name") }
        sources = arguments.operands.dropLast()
        if arguments.contains(.salvage) { salvage = Salvage(isQuiet: arguments.contains(.quiet)) }
        target = last
    }

    /// To be asked when an image is about to be opened, as qemu-img does.
    static func check(isOptions: Bool, formatIsGiven: Bool) throws(ToolFailure) {
        if isOptions, formatIsGiven { throw ToolFailure("--image-opts and --format are mutually exclusive") }
    }

    private static func sparseSize(_ text: String) throws(ToolFailure) -> Int {
        let subject = "buffer size for sparse output"
        let size = try NumberArgument.parse(text, subject, in: 0...Int.max)
        guard size.isMultiple(of: ConvertSource.sectorSize), size <= 16 << 20 else {
            throw ToolFailure(
                "Invalid \(subject) specified. Valid sizes are multiples of 512 up to 16777216. Select 0 to disable sparse detection (fully allocates output).")
        }
        return size
    }
}
