import StrataBase

/// Numbers on command lines: sizes with a suffix, within a range.
package enum NumberArgument {
    /// Parses the value of an option that counts something.
    /// - Parameters:
    ///   - subject: how messages call the value, as in `request count`.
    ///   - range: the values that make sense.
    package static func parse(_ text: String, _ subject: String, in range: ClosedRange<Int>) throws(ToolFailure) -> Int {
        let outOfRange = ToolFailure("Invalid \(subject) specified. Must be between \(range.lowerBound) and \(range.upperBound).")
        guard let value = ByteSize.parse(text) else {
            if isNumberTooFar(text) { throw outOfRange }
            throw ToolFailure("Invalid \(subject) specified: '\(text)'.")
        }
        guard range.contains(value) else { throw outOfRange }
        return value
    }

    /// Parses a size in the words of option lists (`-o size=`).
    /// - Parameter name: how messages call the parameter.
    package static func size(_ text: String, _ name: String) throws(ToolFailure) -> Int {
        if let value = ByteSize.parse(text) { return value }
        if isNumberTooFar(text) { throw ToolFailure("Value '\(text)' is out of range for parameter '\(name)'") }
        throw ToolFailure(
            "Parameter '\(name)' expects a non-negative number below 2^64",
            advice: ["Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-", "and exabytes, respectively."])
    }

    /// Whether the text is a size that fits into 64 bits, but not if one is for the sign. QEMU's tools take it for a negative one.
    package static func isBetween2To63And2To64(_ text: Substring) -> Bool {
        guard ByteSize.parse(text) == nil else { return false }
        var digits = text
        var shift = 0
        if let last = digits.utf8.last, let unit = "bkmgtpe".utf8.firstIndex(of: last | 0x20) {
            shift = 10 * "bkmgtpe".utf8.distance(from: "bkmgtpe".utf8.startIndex, to: unit)
            digits = digits.dropLast()
        }
        guard digits.first != "+", let value = UInt64(digits) else { return false }
        return value <= UInt64.max >> shift
    }

    /// Whether the text is a number, but a negative one or one beyond 64 bits: then the range is what is wrong with it.
    package static func isNumberTooFar(_ text: String) -> Bool {
        let isNegative = text.hasPrefix("-")
        var digits = (isNegative ? text.dropFirst() : text[...]).utf8
        if let last = digits.last, "bkmgtpeBKMGTPE".utf8.contains(last) { digits.removeLast() }
        return !digits.isEmpty && digits.allSatisfy { $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }
            && (isNegative || ByteSize.parse(text) == nil)
    }

    /// A number that is not negative, as C writes it: decimal, octal behind `0`, hexadecimal behind `0x`.
    package static func inCNotation(_ text: some StringProtocol) -> Int? {
        let lower = text.lowercased()
        let (digits, radix) = lower.hasPrefix("0x") ? (lower.dropFirst(2), 16) : lower.hasPrefix("0") && lower != "0" ? (lower.dropFirst(), 8) : (lower[...], 10)
        guard let first = digits.utf8.first, first != UInt8(ascii: "+"), first != UInt8(ascii: "-") else { return nil }
        return Int(digits, radix: radix)
    }
}
