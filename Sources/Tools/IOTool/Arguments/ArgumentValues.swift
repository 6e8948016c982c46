import StrataBase
import ToolSupport

/// Numbers and bytes as commands take them.
enum ArgumentValues {
    /// No request is longer than this, in bytes: the largest multiple of 512 that a signed 32-bit number holds.
    static let longestRequest = 2_147_483_136

    /// An offset or a length in bytes, with an optional suffix.
    static func bytes(_ text: String) throws(CommandFailure) -> Int {
        if let value = ByteSize.parse(text) { return value }
        throw .said(
            ByteSize.read(text) == .noNumber
                ? "Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- \(text)"
                : "Parsing error: argument too large -- \(text)")
    }

    /// A byte to fill with or to look for: decimal, octal or hexadecimal.
    static func pattern(_ text: String) throws(CommandFailure) -> UInt8 {
        guard let value = number(text), let byte = UInt8(exactly: value) else { throw .said("\(text) is not a valid pattern byte") }
        return byte
    }

    /// A number that is not negative, in C's notations; nil for one that is larger than all that we can count.
    static func count(_ text: String) throws(CommandFailure) -> Int? {
        if let value = number(text) { return value }
        let digits = text.utf8.drop { $0 == UInt8(ascii: "+") }
        guard digits.count >= 16, digits.allSatisfy({ $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }) else {
            throw .said("\(text) is not a valid number")
        }
        return nil
    }

    private static func number(_ text: String) -> Int? { NumberArgument.inCNotation(text.hasPrefix("+") ? text.dropFirst() : text[...]) }
}

extension ArgumentValues {
    /// Requests of whole sectors only.
    static func checkSectors(_ offset: Int, _ byteCount: Int) throws(CommandFailure) {
        for (value, name) in [(offset, "offset"), (byteCount, "count")] where !value.isMultiple(of: Disk.sectorSize) {
            throw .said("\(value) is not a sector-aligned value for '\(name)'")
        }
    }
}
