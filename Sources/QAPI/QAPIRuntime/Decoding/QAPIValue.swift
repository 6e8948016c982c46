/// A type that the schema defines or builds on: it is decoded strictly from JSON or from `key=value` text, and encoded to JSON.
public protocol QAPIValue: Hashable, Sendable {
    /// - Throws: an error that names the parameter by its path, in QEMU's wording.
    init(decoding value: JSONValue, _ context: DecodingContext) throws(QMPError)
    var json: JSONValue { get }
}

extension QAPIValue {
    /// Decodes a value of which nobody stands above.
    public init(decoding value: JSONValue, mode: DecodingContext.Mode = .json) throws(QMPError) {
        try self.init(decoding: value, DecodingContext(mode))
    }
}

/// An enumeration of the schema; raw values are the names on the wire.
public protocol QAPIEnum: QAPIValue, RawRepresentable<String>, CaseIterable {}

extension QAPIEnum {
    public init(decoding value: JSONValue, _ context: DecodingContext) throws(QMPError) {
        guard case .string(let name) = value else { throw context.wrongType(expected: "string") }
        guard let known = Self(rawValue: name) else { throw context.badValue(name) }
        self = known
    }
    public var json: JSONValue { .string(rawValue) }
}

/// A struct or union of the schema. A union's branches and a struct's base share one object, so decoding takes members out of a common
/// decoder, and what is left over at the end is an error.
public protocol QAPIObject: QAPIValue {
    init(members: inout ObjectDecoder) throws(QMPError)
    func encodeMembers(into object: inout ObjectEncoder)
}

extension QAPIObject {
    public init(decoding value: JSONValue, _ context: DecodingContext) throws(QMPError) {
        var decoder = try ObjectDecoder(value, context)
        try self.init(members: &decoder)
        try decoder.finish()
    }

    public var json: JSONValue {
        var encoder = ObjectEncoder()
        encodeMembers(into: &encoder)
        return .object(encoder.object)
    }
}

/// What commands without arguments take and commands without a result return.
public struct QAPIEmpty: QAPIObject {
    public init() {}
    public init(members: inout ObjectDecoder) throws(QMPError) {}
    public func encodeMembers(into object: inout ObjectEncoder) {}
}
