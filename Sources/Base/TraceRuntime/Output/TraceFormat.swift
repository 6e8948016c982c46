/// How events are written out.
package enum TraceFormat: String, Sendable, Hashable {
    /// For people: `THREAD@SECONDS.MICROSECONDS:name text`.
    case text
    /// One JSON object on each line.
    case json

    /// What the ending of a file's name asks for.
    package init(ofFile path: String) {
        self = [".json", ".jsonl", ".ndjson"].contains { path.hasSuffix($0) } ? .json : .text
    }
}

extension TraceRecord {
    /// The line, with its end.
    func line(_ format: TraceFormat) -> String {
        switch format {
        case .text: textLine
        case .json: jsonLine
        }
    }

    private var seconds: Int64 { nanoseconds / 1_000_000_000 }
    private var microseconds: Int64 { nanoseconds / 1000 % 1_000_000 }

    private var textLine: String {
        let fraction = String(microseconds)
        var line = "\(thread)@\(seconds).\(String(repeating: "0", count: 6 - fraction.utf8.count))\(fraction):\(event.name) "
        var rest = Array(zip(event.arguments, values))[...]
        for piece in event.pieces {
            switch piece {
            case .text(let text): line += text
            case .value(let style):
                guard let (argument, value) = rest.popFirst() else { continue }
                line += Self.text(value, argument.kind, style)
            }
        }
        return line + "\n"
    }

    private static func text(_ value: Value, _ kind: TraceEvent.Kind, _ style: TraceStyle) -> String {
        var text: String
        var sign = ""
        switch value {
        case .string(let string): text = oneLine(string)
        case .integer(let bits):
            switch style.form {
            case .decimal where kind == .signed:
                let number = Int64(bitPattern: bits)
                if number < 0 { sign = "-" }
                text = String(number.magnitude)
            case .decimal, .string: text = String(bits)
            case .lowercaseHex: text = String(bits, radix: 16)
            case .uppercaseHex: text = String(bits, radix: 16, uppercase: true)
            case .pointer:
                sign = "0x"
                text = String(bits, radix: 16)
            }
            if style.hasPrefix { sign = "0x" }
        }
        let missing = max(0, style.width - sign.utf8.count - text.count)
        if style.isLeftAligned { return sign + text + String(repeating: " ", count: missing) }
        if style.isZeroPadded { return sign + String(repeating: "0", count: missing) + text }
        return String(repeating: " ", count: missing) + sign + text
    }

    /// What came from outside may not break the line nor command the terminal.
    private static func oneLine(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: { $0.value < 0x20 || (0x7f...0x9f).contains($0.value) }) else { return text }
        return text.unicodeScalars.map { scalar in
            scalar.value < 0x20 || (0x7f...0x9f).contains(scalar.value) ? "\\x" + hex(scalar.value, digits: 2) : String(scalar)
        }.joined()
    }

    private var jsonLine: String {
        var line = "{\"timestamp\": {\"seconds\": \(seconds), \"microseconds\": \(microseconds)}, \"thread\": \(thread), "
        line += "\"event\": \(Self.quoted(event.name)), \"data\": {"
        var isFirst = true
        for (argument, value) in zip(event.arguments, values) {
            line += isFirst ? "" : ", "
            isFirst = false
            line += Self.quoted(argument.name) + ": "
            switch (value, argument.kind) {
            case (.string(let text), _): line += Self.quoted(text)
            case (.integer(let bits), .signed): line += String(Int64(bitPattern: bits))
            case (.integer(let bits), .boolean): line += bits == 0 ? "false" : "true"
            case (.integer(let bits), .pointer): line += "\"0x\(String(bits, radix: 16))\""
            case (.integer(let bits), _): line += String(bits)
            }
        }
        return line + "}}\n"
    }

    private static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\":
                result += "\\"
                result.unicodeScalars.append(scalar)
            default:
                if scalar.value < 0x20 { result += "\\u" + hex(scalar.value, digits: 4) } else { result.unicodeScalars.append(scalar) }
            }
        }
        return result + "\""
    }

    private static func hex(_ value: UInt32, digits: Int) -> String {
        let text = String(value, radix: 16)
        return String(repeating: "0", count: max(0, digits - text.utf8.count)) + text
    }
}
