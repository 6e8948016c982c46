import StrataBase

/// Numbers on command lines: sizes with a suffix, within a range.
package enum NumberArgument {
    /// Parses the value of an option that counts something.
    /// - Parameters:
    ///   - subject: how messages call the value, as in `request count`.
    ///   - range: the values that make sense.
    package static func parse(_ text: String, _ subject: String, in range: ClosedRange<Int>) throws(ToolFailure) -> Int {
        let outOfRange = ToolFailure("Invalid \(subject) specified. Must be between \(range.lowerBound) and \(range.upperBound).")
        switch ByteSize.read(text) {
        case .noNumber: throw ToolFailure("Invalid \(subject) specified: '\(text)'.")
        case .outOfRange: throw outOfRange
        case .value(let value):
            guard let value = Int(exactly: value), range.contains(value) else { throw outOfRange }
            return value
        }
    }

    /// Parses a size in the words of option lists (`-o size=`).
    /// - Parameter name: how messages call the parameter.
    package static func size(_ text: String, _ name: String) throws(ToolFailure) -> Int {
        if let value = ByteSize.parse(text) { return value }
        guard ByteSize.read(text) == .noNumber else { throw ToolFailure("Value '\(text)' is out of range for parameter '\(name)'") }
        throw ToolFailure(
            "Parameter '\(name)' expects a non-negative number below 2^64",
            advice: ["Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-", "and exabytes, respectively."])
    }

    /// Parses a number that takes no suffix, but is written in one of C's notations.
    package static func count(_ text: String, _ subject: String) throws(ToolFailure) -> Int {
        switch readCNotation(text) {
        case .noNumber: throw ToolFailure("Invalid \(subject) specified: '\(text)'.")
        case .value(let value):
            if let value = Int(exactly: value) { return value }
            fallthrough
        case .outOfRange: throw ToolFailure("Invalid \(subject) specified. Must be between 0 and \(Int.max).")
        }
    }

    /// A number that is not negative in one of C's notations.
    package static func inCNotation(_ text: some StringProtocol) -> Int? {
        guard case .value(let value) = readCNotation(text) else { return nil }
        return Int(exactly: value)
    }

    /// Reads a number as C writes it: decimal, octal behind `0`, hexadecimal behind `0x`; blanks and a sign may stand in front.
    private static func readCNotation(_ text: some StringProtocol) -> ByteSize.Reading {
        var digits = Array(text.utf8)[...].drop { $0 == UInt8(ascii: " ") || (9...13).contains($0) }
        let isNegative = digits.first == UInt8(ascii: "-")
        if isNegative || digits.first == UInt8(ascii: "+") { digits.removeFirst() }
        var radix: UInt8 = 10
        if digits.starts(with: "0x".utf8) || digits.starts(with: "0X".utf8) {
            (digits, radix) = (digits.dropFirst(2), 16)
        } else if digits.first == UInt8(ascii: "0") {
            radix = 8
        }
        func isDigit(_ byte: UInt8) -> Bool {
            (byte >= UInt8(ascii: "0") && byte < UInt8(ascii: "0") + min(radix, 10)) || (radix == 16 && byte | 0x20 >= UInt8(ascii: "a") && byte | 0x20 <= UInt8(ascii: "f"))
        }
        guard !digits.isEmpty, digits.allSatisfy(isDigit) else { return .noNumber }
        guard let value = UInt64(String(decoding: digits, as: UTF8.self), radix: Int(radix)), !isNegative || value == 0 else { return .outOfRange }
        return .value(value)
    }
}
