import StrataBase

/// Hands out the members of one object, each once, and refuses what nobody asked for.
public struct ObjectDecoder {
    private let object: JSONObject
    private var taken: Set<String> = []
    public let context: DecodingContext
    /// The names of members in the object, where they are not those that are asked for.
    private let names: [String: String]

    /// - Parameter names: from names that are asked for to those in `value`.
    /// - Throws: if `value` is not an object.
    public init(_ value: JSONValue, _ context: DecodingContext, renaming names: [String: String] = [:]) throws(QMPError) {
        try context.checkDepth()
        guard case .object(let object) = value else { throw context.wrongType(expected: "object") }
        self.object = object
        self.context = context
        self.names = names
    }

    private func name(_ key: String) -> String { names.isEmpty ? key : names[key] ?? key }

    private mutating func take(_ key: String, _ features: SpecialFeatures) throws(QMPError) -> JSONValue? {
        guard let value = object[key] else { return nil }
        try context.policy.check(features, of: "parameter", context.member(key).path.description)
        taken.insert(key)
        return value
    }

    private func missing(_ key: String) -> QMPError {
        QMPError("Parameter '\(context.member(key).path)' is missing")
    }

    private func decode<T: QAPIValue>(_ value: JSONValue, _ key: String) throws(QMPError) -> T {
        try T(decoding: T.takesEveryValue ? value : last(of: value), context.member(key))
    }

    /// Of an option that was given several times the last one counts.
    private func last(of value: JSONValue) -> JSONValue {
        if context.mode == .optionText, case .array(let values) = value, let last = values.last { last } else { value }
    }

    public mutating func required<T: QAPIValue>(_ key: String, _ features: SpecialFeatures = []) throws(QMPError) -> T {
        let key = name(key)
        guard let value = try take(key, features) else { throw missing(key) }
        return try decode(value, key)
    }

    public mutating func optional<T: QAPIValue>(_ key: String, _ features: SpecialFeatures = []) throws(QMPError) -> T? {
        let key = name(key)
        guard let value = try take(key, features) else { return nil }
        return try decode(value, key)
    }

    /// A number of bytes, which text may write with a suffix (`64k`).
    public mutating func requiredSize(_ key: String, _ features: SpecialFeatures = []) throws(QMPError) -> Int {
        let key = name(key)
        guard let value = try take(key, features) else { throw missing(key) }
        return try Self.size(last(of: value), context.member(key))
    }

    public mutating func optionalSize(_ key: String, _ features: SpecialFeatures = []) throws(QMPError) -> Int? {
        let key = name(key)
        guard let value = try take(key, features) else { return nil }
        return try Self.size(last(of: value), context.member(key))
    }

    private static func size(_ value: JSONValue, _ context: DecodingContext) throws(QMPError) -> Int {
        if context.mode.isText, case .string(let text) = value {
            guard let size = ByteSize.parse(text) else {
                throw context.unacceptable(expected: "a size in bytes, optionally with a suffix such as k, M or G")
            }
            return size
        }
        let size = try Int(decoding: value, context)
        if size < 0 { throw context.unacceptable(expected: "a size in bytes that is not negative") }
        return size
    }

    /// - Throws: if the object holds a member that was not taken.
    public func finish() throws(QMPError) {
        guard taken.count < object.count, let extra = object.members.first(where: { !taken.contains($0.key) }) else { return }
        throw QMPError("Parameter '\(context.member(extra.key).path)' is unexpected")
    }
}

/// Collects the members of one object.
public struct ObjectEncoder {
    public private(set) var object = JSONObject()
    private let policy: CompatPolicy
    private let names: [String: String]

    /// - Parameters:
    ///   - policy: which members to leave out.
    ///   - names: from names that are set to those in the object.
    public init(_ policy: CompatPolicy = CompatPolicy(), renaming names: [String: String] = [:]) {
        self.policy = policy
        self.names = names
    }

    public mutating func set(_ key: String, _ value: some QAPIValue, _ features: SpecialFeatures = []) {
        if policy.hides(features) { return }
        object[names.isEmpty ? key : names[key] ?? key] = value.json(policy)
    }

    /// An absent member is not written at all.
    public mutating func set(_ key: String, _ value: (some QAPIValue)?, _ features: SpecialFeatures = []) {
        if let value { set(key, value, features) }
    }
}
