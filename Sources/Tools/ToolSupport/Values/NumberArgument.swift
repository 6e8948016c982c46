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

    /// Whether the text is a number, but a negative one or one beyond 64 bits: then the range is what is wrong with it.
    package static func isNumberTooFar(_ text: String) -> Bool {
        let isNegative = text.hasPrefix("-")
        var digits = (isNegative ? text.dropFirst() : text[...]).utf8
        if let last = digits.last, "bkmgtpeBKMGTPE".utf8.contains(last) { digits.removeLast() }
        return !digits.isEmpty && digits.allSatisfy { $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }
            && (isNegative || ByteSize.parse(text) == nil)
    }
}
