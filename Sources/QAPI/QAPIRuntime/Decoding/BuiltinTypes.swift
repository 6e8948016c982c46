// The schema language's built-in types. `int`, `int64` and `size` are Swift's Int, `uint64` is UInt64, `any` is JSONValue.

extension String: QAPIValue {
    public init(decoding value: JSONValue, _ context: DecodingContext) throws(QMPError) {
        guard case .string(let string) = value else { throw context.wrongType(expected: "string") }
        self = string
    }
    public func json(_ policy: CompatPolicy) -> JSONValue { .string(self) }
}

extension Bool: QAPIValue {
    public init(decoding value: JSONValue, _ context: DecodingContext) throws(QMPError) {
        switch value {
        case .bool(let bool): self = bool
        case .string(let word) where context.mode.isText:
            switch word {
            case "on", "yes", "true", "y": self = true
            case "off", "no", "false", "n": self = false
            default: throw context.unacceptable(expected: "'on' or 'off'")
            }
        default: throw context.wrongType(expected: "boolean")
        }
    }
    public func json(_ policy: CompatPolicy) -> JSONValue { .bool(self) }
}

/// The integer types differ in range and in the name that an error gives them.
public protocol QAPIInteger: QAPIValue, FixedWidthInteger {
    static var schemaName: String { get }
}

extension QAPIInteger {
    public init(decoding value: JSONValue, _ context: DecodingContext) throws(QMPError) {
        let exact: Self?
        switch value {
        case .integer(let integer): exact = Self(exactly: integer)
        case .unsigned(let integer):
            // A 64-bit signed parameter has no word for its range: the number is not an integer to it.
            if Self.bitWidth == 64 && Self.isSigned { throw context.wrongType(expected: "integer") }
            exact = Self(exactly: integer)
        case .string(let text) where context.mode.isText:
            exact = Self.parsing(text)
            if exact == nil { throw context.unacceptable(expected: "integer") }
        default: throw context.wrongType(expected: "integer")
        }
        guard let exact else { throw context.unacceptable(expected: Self.schemaName) }
        self = exact
    }

    /// Digits, or `0x` and hexadecimal digits, behind an optional minus sign.
    static func parsing(_ text: String) -> Self? {
        let isNegative = text.hasPrefix("-")
        let digits = isNegative ? text.dropFirst() : text[...]
        guard let first = digits.utf8.first, first != UInt8(ascii: "+"), first != UInt8(ascii: "-") else { return nil }
        let sign = isNegative ? "-" : ""
        if digits.hasPrefix("0x") || digits.hasPrefix("0X") {
            let rest = digits.dropFirst(2)
            guard rest.utf8.first != UInt8(ascii: "+"), rest.utf8.first != UInt8(ascii: "-") else { return nil }
            return Self(sign + rest, radix: 16)
        }
        return Self(sign + digits, radix: 10)
    }

    public func json(_ policy: CompatPolicy) -> JSONValue {
        if let integer = Int(exactly: self) { .integer(integer) } else { JSONValue(UInt64(truncatingIfNeeded: self)) }
    }
}

extension Int: QAPIInteger { public static var schemaName: String { "int64" } }
extension Int8: QAPIInteger { public static var schemaName: String { "int8_t" } }
extension Int16: QAPIInteger { public static var schemaName: String { "int16_t" } }
extension Int32: QAPIInteger { public static var schemaName: String { "int32_t" } }
extension UInt8: QAPIInteger { public static var schemaName: String { "uint8_t" } }
extension UInt16: QAPIInteger { public static var schemaName: String { "uint16_t" } }
extension UInt32: QAPIInteger { public static var schemaName: String { "uint32_t" } }
extension UInt64: QAPIInteger { public static var schemaName: String { "uint64" } }

extension Double: QAPIValue {
    public init(decoding value: JSONValue, _ context: DecodingContext) throws(QMPError) {
        switch value {
        case .number(let number): self = number
        case .integer(let integer): self = Double(integer)
        case .unsigned(let integer): self = Double(integer)
        case .string(let text) where context.mode.isText:
            guard let number = Double(text), number.isFinite else { throw context.unacceptable(expected: "number") }
            self = number
        default: throw context.wrongType(expected: "number")
        }
    }
    public func json(_ policy: CompatPolicy) -> JSONValue { Int(exactly: self).map(JSONValue.integer) ?? .number(self) }
}

extension JSONValue: QAPIValue {
    public init(decoding value: JSONValue, _ context: DecodingContext) throws(QMPError) { self = value }
    public func json(_ policy: CompatPolicy) -> JSONValue { self }
    public var json: JSONValue { self }
}

extension Array: QAPIValue where Element: QAPIValue {
    public init(decoding value: JSONValue, _ context: DecodingContext) throws(QMPError) {
        guard case .array(let values) = value else { throw context.wrongType(expected: "array") }
        self = []
        reserveCapacity(values.count)
        if context.mode == .optionText, let integer = Element.self as? any QAPIInteger.Type {
            self = try Self.ranges(of: integer, values, context)
            return
        }
        for (index, value) in values.enumerated() { append(try Element(decoding: value, context.element(index))) }
    }
    public func json(_ policy: CompatPolicy) -> JSONValue { .array(map { $0.json(policy) }) }
    public static var takesEveryValue: Bool { true }

    private static func ranges<Integer: QAPIInteger>(
        of _: Integer.Type, _ values: [JSONValue], _ context: DecodingContext
    ) throws(QMPError) -> Self {
        var integers: [Integer] = []
        for value in values {
            guard case .string(let text) = value else { throw context.wrongType(expected: "array") }
            try IntegerRanges.parse(text, into: &integers, context)
        }
        return integers as? Self ?? []
    }
}

/// The type `null`, whose one value is JSON's null. Text writes it as nothing at all.
public struct QAPINull: QAPIValue {
    public init() {}
    public init(decoding value: JSONValue, _ context: DecodingContext) throws(QMPError) {
        switch value {
        case .null: break
        case .string("") where context.mode.isText: break
        default: throw context.wrongType(expected: "null")
        }
    }
    public func json(_ policy: CompatPolicy) -> JSONValue { .null }
}

/// The kinds of JSON values, as the schema language names them.
public enum QType: String, QAPIEnum {
    case none, qnull, qnum, qstring, qdict, qlist, qbool
}
