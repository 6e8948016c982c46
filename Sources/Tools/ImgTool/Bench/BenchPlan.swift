import ToolSupport

/// What `bench` is asked to do. Sizes and offsets in bytes.
struct BenchPlan: Sendable, Hashable {
    var isWrite = false
    var count = 75000
    /// Requests under way at once.
    var depth = 64
    var bufferSize = 4096
    var offset = 0
    /// How far the next request starts behind the last; by default right after it.
    var step = 0
    /// The byte that writes write.
    var pattern: UInt8 = 0
    /// A flush after each so many writes; 0 for none.
    var flushInterval = 0
    /// Whether a flush waits until no write is under way.
    var drainsOnFlush = true
    /// How files are accessed: the last of `-i` and `-n` counts.
    var aio: String?
    var cache: CacheMode?

    init() {}

    init(_ arguments: ParsedArguments<BenchCommand.Key>) throws(ToolFailure) {
        let positive = 1...Int(Int32.max)
        let natural = 0...Int(Int32.max)
        for option in arguments.occurrences {
            let value = option.value ?? ""
            switch option.key {
            case .native: aio = "native"
            case .aio:
                guard ["threads", "native", "io_uring"].contains(value) else { throw ToolFailure("Invalid aio option: \(value)") }
                aio = value
            case .cache:
                guard let mode = CacheMode(value) else { throw ToolFailure("Invalid cache mode") }
                cache = mode
            case .count: count = try NumberArgument.parse(value, "request count", in: positive)
            case .depth: depth = try NumberArgument.parse(value, "queue depth", in: positive)
            case .bufferSize: bufferSize = try NumberArgument.parse(value, "buffer size", in: positive)
            case .offset: offset = try NumberArgument.parse(value, "offset", in: 0...Int.max)
            case .stepSize: step = try NumberArgument.parse(value, "step size", in: natural)
            case .pattern: pattern = UInt8(try NumberArgument.parse(value, "pattern byte", in: 0...255))
            case .flushInterval: flushInterval = try NumberArgument.parse(value, "flush interval", in: natural)
            case .noDrain: drainsOnFlush = false
            case .write: isWrite = true
            default: break
            }
        }
        if step == 0 { step = bufferSize }
    }

    /// - Throws: for numbers that do not go together.
    func check() throws(ToolFailure) {
        if !isWrite && flushInterval > 0 { throw ToolFailure("--flush-interval is only available in write tests") }
        if flushInterval > 0 && flushInterval < depth { throw ToolFailure("Flush interval can't be smaller than depth") }
    }

    /// The lines that are printed before the start.
    var announcement: String {
        var text = "Sending \(count) \(isWrite ? "write" : "read") requests, \(bufferSize) bytes each, \(depth) in parallel "
        text += "(starting at offset \(offset), step size \(step))\n"
        if flushInterval > 0 { text += "Sending flush every \(flushInterval) requests\n" }
        return text
    }

    /// The line that is printed at the end.
    static func result(seconds: Double) -> String {
        let milliseconds = Int((seconds * 1000).rounded(.toNearestOrEven))
        let fraction = String(milliseconds % 1000)
        return "Run completed in \(milliseconds / 1000).\(String(repeating: "0", count: 3 - fraction.utf8.count))\(fraction) seconds.\n"
    }
}
