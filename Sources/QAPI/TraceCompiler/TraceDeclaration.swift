/// One trace point as its module's `trace-events` declares it.
package struct TraceDeclaration: Sendable, Hashable {
    package struct Argument: Sendable, Hashable {
        package let type: TraceType
        package let name: String
    }

    package let name: String
    /// Declared with `disable`: listed, and compiled to nothing.
    package let isDisabled: Bool
    package let arguments: [Argument]
    package let format: [TraceFormatPiece]
    /// Where the declaration begins, counted from 1.
    package let line: Int
}

/// What an argument may be. Names on the left are those of the file, on the right those of Swift.
package enum TraceType: Sendable, Hashable, CaseIterable {
    /// `int`, `int64_t`, `ssize_t`, `off_t`: an `Int`, which is what offsets are in Swift.
    case int
    /// `size_t`: an `Int` too, as counts of bytes are.
    case size
    /// `int32_t`
    case int32
    /// `unsigned`, `unsigned int`
    case unsigned
    case uint8, uint16, uint32, uint64
    case bool
    /// `const char *`: a `String`, which is made only when the event is on.
    case string
    /// `void *`, `const void *`: an object, told by its address.
    case pointer

    private static let names: [String: TraceType] = [
        "int": .int, "int64_t": .int, "size_t": .size, "ssize_t": .int, "off_t": .int, "int32_t": .int32,
        "unsigned": .unsigned, "unsigned int": .unsigned,
        "uint8_t": .uint8, "uint16_t": .uint16, "uint32_t": .uint32, "uint64_t": .uint64, "bool": .bool,
        "const char *": .string, "void *": .pointer, "const void *": .pointer,
    ]

    /// All names, for messages.
    package static var allNames: String { names.keys.sorted().joined(separator: ", ") }

    /// - Parameter name: with one blank between words and before the star.
    package init?(_ name: String) {
        guard let type = Self.names[name] else { return nil }
        self = type
    }

    /// The type of the generated function's parameter.
    var swift: String {
        switch self {
        case .int, .size: "Int"
        case .int32: "Int32"
        case .unsigned: "UInt"
        case .uint8: "UInt8"
        case .uint16: "UInt16"
        case .uint32: "UInt32"
        case .uint64: "UInt64"
        case .bool: "Bool"
        case .string: "String"
        case .pointer: "AnyObject"
        }
    }

    /// The case of the runtime's `TraceEvent.Kind`.
    var kind: String {
        switch self {
        case .int, .size, .int32: "signed"
        case .unsigned, .uint8, .uint16, .uint32, .uint64: "unsigned"
        case .bool: "boolean"
        case .string: "string"
        case .pointer: "pointer"
        }
    }
}

/// A part of a format string.
package enum TraceFormatPiece: Sendable, Hashable {
    case text(String)
    case conversion(TraceConversion)
}

/// `%08x` and its relatives. How long the value is does not matter: values travel with their Swift types.
package struct TraceConversion: Sendable, Hashable {
    /// `d`, `u`, `x`, `X`, `s` or `p`; `i` is `d`.
    package var letter: Character
    package var width = 0
    package var isZeroPadded = false
    package var isLeftAligned = false
    package var hasPrefix = false

    package init(_ letter: Character) { self.letter = letter }

    func fits(_ type: TraceType) -> Bool {
        switch (letter, type) {
        case ("s", .string), ("p", .pointer): true
        case ("s", _), ("p", _), (_, .string), (_, .pointer): false
        case ("d", .unsigned), ("d", .uint32), ("d", .uint64), ("u", .int), ("u", .int32): false
        default: true
        }
    }
}

/// Why a `trace-events` file is refused.
package struct TraceSyntaxError: Error, Hashable, Sendable, CustomStringConvertible {
    package let file: String
    package let line: Int
    package let message: String

    package var description: String { "\(file):\(line): \(message)" }
}
