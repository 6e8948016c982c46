// Writing JSON text, in the two layouts that QEMU's programs print: one line, or indented by four spaces.

extension JSONValue {
    /// The JSON text, pure ASCII: everything above is escaped, so that it survives any terminal and any log.
    /// - Parameter pretty: indented, one member or element a line, instead of everything on one line.
    public func text(pretty: Bool = false) -> String {
        String(decoding: bytes(pretty: pretty), as: UTF8.self)
    }

    /// The JSON text as ASCII bytes, without a newline at its end.
    public func bytes(pretty: Bool = false) -> [UInt8] {
        var writer = JSONWriter(pretty: pretty)
        writer.write(self)
        return writer.bytes
    }
}

/// Appends values to a growing array of bytes.
struct JSONWriter {
    let pretty: Bool
    var bytes: [UInt8] = []
    private var depth = 0

    init(pretty: Bool) { self.pretty = pretty }

    mutating func write(_ value: JSONValue) {
        switch value {
        case .null: bytes += "null".utf8
        case .bool(let value): bytes += (value ? "true" : "false").utf8
        case .integer(let value): bytes += String(value).utf8
        case .unsigned(let value): bytes += String(value).utf8
        case .number(let value): bytes += Self.text(of: value).utf8
        case .string(let value): write(value)
        case .array(let elements):
            open("[")
            for (position, element) in elements.enumerated() {
                separate(position)
                write(element)
            }
            close("]")
        case .object(let object):
            open("{")
            for (position, member) in object.members.enumerated() {
                separate(position)
                write(member.key)
                bytes += ": ".utf8
                write(member.value)
            }
            close("}")
        }
    }

    private mutating func open(_ bracket: Unicode.Scalar) {
        bytes.append(UInt8(ascii: bracket))
        depth += 1
    }

    /// An empty container still spans two lines in the pretty layout, as the peers print it.
    private mutating func close(_ bracket: Unicode.Scalar) {
        depth -= 1
        newLine()
        bytes.append(UInt8(ascii: bracket))
    }

    private mutating func separate(_ position: Int) {
        if position > 0 { bytes += (pretty ? "," : ", ").utf8 }
        newLine()
    }

    private mutating func newLine() {
        guard pretty else { return }
        bytes.append(UInt8(ascii: "\n"))
        bytes += repeatElement(UInt8(ascii: " "), count: depth * 4)
    }

    private mutating func write(_ string: String) {
        bytes.append(UInt8(ascii: "\""))
        for scalar in string.unicodeScalars {
            switch scalar {
            case "\"": bytes += "\\\"".utf8
            case "\\": bytes += "\\\\".utf8
            case "\u{8}": bytes += "\\b".utf8
            case "\u{c}": bytes += "\\f".utf8
            case "\n": bytes += "\\n".utf8
            case "\r": bytes += "\\r".utf8
            case "\t": bytes += "\\t".utf8
            case " "..."~": bytes.append(UInt8(truncatingIfNeeded: scalar.value))
            default: for unit in String(scalar).utf16 { escape(unit) }
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }

    private mutating func escape(_ unit: UInt16) {
        let digits = String(unit, radix: 16, uppercase: true)
        bytes += "\\u".utf8
        bytes += repeatElement(UInt8(ascii: "0"), count: 4 - digits.utf8.count)
        bytes += digits.utf8
    }

    /// The shortest text that reads back as the same number; whole numbers go without a fraction.
    private static func text(of number: Double) -> String {
        if let whole = Int(exactly: number), whole.magnitude < 1 << 53, whole != 0 || number.sign == .plus { return String(whole) }
        return number.isFinite ? "\(number)" : "null"
    }
}
