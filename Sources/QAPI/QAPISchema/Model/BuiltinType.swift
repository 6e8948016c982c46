/// The types that the language defines itself.
package enum BuiltinType: String, CaseIterable, Sendable {
    case str, number, int, int8, int16, int32, int64, uint8, uint16, uint32, uint64, size, bool, null, any
    case qtype = "QType"

    /// How values travel. `any` has no type of its own.
    package var jsonType: JSONKind {
        switch self {
        case .str, .qtype: .string
        case .number: .number
        case .int, .int8, .int16, .int32, .int64, .uint8, .uint16, .uint32, .uint64, .size: .int
        case .bool: .boolean
        case .null: .null
        case .any: .value
        }
    }
}

/// The JSON types as introspection names them.
package enum JSONKind: String, Sendable {
    case string, number, int, boolean, null, object, array, value
}
