package import StrataBase

/// The rules for names that users give to nodes (and to jobs, exports and objects, which share them).
package enum NodeNames {
    /// Bytes.
    package static let maximumLength = 31

    /// A letter first, then letters, digits, `-`, `.` and `_`; at most 31 bytes.
    package static func check(_ name: String) throws(BlockError) {
        guard isWellFormed(name) else { throw BlockError(.invalidArgument, "Invalid node-name: '\(name)'") }
        guard name.utf8.count <= maximumLength else {
            throw BlockError(.invalidArgument, "Node name too long", hint: "'\(name)' has more than \(maximumLength) bytes.")
        }
    }

    /// The rule without the length limit.
    package static func isWellFormed(_ name: String) -> Bool {
        func isLetter(_ byte: UInt8) -> Bool { (byte | 0x20) >= UInt8(ascii: "a") && (byte | 0x20) <= UInt8(ascii: "z") }
        func isDigit(_ byte: UInt8) -> Bool { byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") }
        guard let first = name.utf8.first, isLetter(first) else { return false }
        return name.utf8.allSatisfy { isLetter($0) || isDigit($0) || [UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_")].contains($0) }
    }
}
