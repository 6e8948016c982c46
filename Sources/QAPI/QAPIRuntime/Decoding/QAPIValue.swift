/// A type that the schema defines or builds on: it is decoded strictly from JSON or from `key=value` text, and encoded to JSON.
public protocol QAPIValue: Hashable, Sendable {
    /// - Throws: an error that names the parameter by its path, in QEMU's wording.
    init(decoding value: JSONValue, _ context: DecodingContext) throws(QMPError)
    /// The value as JSON, without the members that the policy hides.
    func json(_ policy: CompatPolicy) -> JSONValue
    /// Whether an option that is given several times means all of its values; otherwise the last one counts.
    static var takesEveryValue: Bool { get }
}

extension QAPIValue {
    /// Decodes a value of which nobody stands above.
    public init(
        decoding value: JSONValue, mode: DecodingContext.Mode = .json, policy: CompatPolicy = CompatPolicy()
    ) throws(QMPError) {
        try self.init(decoding: value, DecodingContext(mode, policy: policy))
    }

    public static var takesEveryValue: Bool { false }

    /// The whole value as JSON.
    public var json: JSONValue { json(CompatPolicy()) }
}

/// An enumeration of the schema; raw values are the names on the wire.
public protocol QAPIEnum: QAPIValue, RawRepresentable<String>, CaseIterable {
    /// The special features of this value.
    var specialFeatures: SpecialFeatures { get }
}

extension QAPIEnum {
    public init(decoding value: JSONValue, _ context: DecodingContext) throws(QMPError) {
        guard case .string(let name) = value else { throw context.wrongType(expected: "string") }
        guard let known = Self(rawValue: name) else { throw context.badValue(name) }
        try context.policy.check(known.specialFeatures, of: "value", name)
        self = known
    }
    public func json(_ policy: CompatPolicy) -> JSONValue { .string(rawValue) }
    public var specialFeatures: SpecialFeatures { [] }
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

    public func json(_ policy: CompatPolicy) -> JSONValue {
        var encoder = ObjectEncoder(policy)
        encodeMembers(into: &encoder)
        return .object(encoder.object)
    }
}

extension QAPIObject {
    /// Decodes an object some of whose members go by other names, as where a command passes a part of its own arguments on to a type that
    /// calls it differently. Errors say the name that the sender used.
    /// - Parameter names: from names of this type's members to those in `value`.
    public init(decoding value: JSONValue, _ context: DecodingContext = DecodingContext(), renaming names: [String: String]) throws(QMPError) {
        var decoder = try ObjectDecoder(value, context, renaming: names)
        try self.init(members: &decoder)
        try decoder.finish()
    }

    /// The object with some members under other names.
    public func json(_ policy: CompatPolicy = CompatPolicy(), renaming names: [String: String]) -> JSONValue {
        var encoder = ObjectEncoder(policy, renaming: names)
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
