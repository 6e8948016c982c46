import StrataBase
import ToolSupport

/// The `key=value` words of `dd`.
struct DDOperands {
    /// Bytes.
    private(set) var blockSize = 512
    /// Blocks, from the start of the input; nil for all.
    private(set) var count: Int?
    /// Blocks.
    private(set) var skip = 0
    private(set) var input: String?
    private(set) var output: String?

    /// - Throws: a failure that names the first word that makes no sense.
    init(_ words: [String]) throws(ToolFailure) {
        for word in words {
            let equals = word.firstIndex(of: "=")
            let key = equals.map { String(word[..<$0]) } ?? word
            guard let equals else { throw ToolFailure("unrecognized operand \(key)") }
            let value = String(word[word.index(after: equals)...])
            switch key {
            case "bs": blockSize = try NumberArgument.parse(value, "bs", in: 1...Int(Int32.max))
            case "count": count = try NumberArgument.count(value, "count")
            case "skip": skip = try NumberArgument.count(value, "skip")
            case "if": input = value
            case "of": output = value
            default: throw ToolFailure("unrecognized operand \(key)")
            }
        }
    }

    /// The part of the input that is copied. As in qemu-img, `count` says where reading ends, and what `skip` leaves out counts too.
    /// - Returns: nil when `skip` leads beyond the end.
    func range(inImageOf length: Int) -> Range<Int>? {
        let (wanted, overflow) = (count ?? Int.max).multipliedReportingOverflow(by: blockSize)
        let end = overflow ? length : min(length, wanted)
        let (start, isFar) = skip.multipliedReportingOverflow(by: blockSize)
        return isFar || start > end ? nil : start..<end
    }
}
