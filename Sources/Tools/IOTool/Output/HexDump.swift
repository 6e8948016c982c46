import IOCore

/// Bytes as `-v` prints them: sixteen on a line, behind their offset, with the letters and digits among them repeated at the end.
enum HexDump {
    /// So many bytes are put together before they are printed.
    private static let bytesAtOnce = 16384

    static func print(_ contents: IOVector, startingAt offset: Int) {
        var position = 0
        while position < contents.byteCount {
            let count = min(bytesAtOnce, contents.byteCount - position)
            var bytes = [UInt8](repeating: 0, count: count)
            contents.slice(at: position, byteCount: count).copyOut(into: &bytes, at: 0)
            StandardStreams.print(text(bytes, startingAt: offset + position))
            position += count
        }
    }

    static func text(_ bytes: [UInt8], startingAt offset: Int) -> String {
        var text = ""
        for start in stride(from: 0, to: bytes.count, by: 16) {
            text += line(bytes[start..<min(start + 16, bytes.count)], at: offset + start)
        }
        return text
    }

    private static func line(_ bytes: ArraySlice<UInt8>, at offset: Int) -> String {
        var text = padded(String(offset, radix: 16), to: 8) + ":  "
        var letters = ""
        for byte in bytes {
            text += padded(String(byte, radix: 16), to: 2) + " "
            letters.unicodeScalars.append(isPrinted(byte) ? Unicode.Scalar(byte) : ".")
        }
        return "\(text) \(letters)\n"
    }

    private static func isPrinted(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"): true
        default: false
        }
    }

    private static func padded(_ digits: String, to count: Int) -> String {
        String(repeating: "0", count: max(0, count - digits.utf8.count)) + digits
    }
}
