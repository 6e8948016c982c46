import StrataBase

/// Hands out the members of one object, each once, and refuses what nobody asked for.
public struct ObjectDecoder {
    private let object: JSONObject
    private var taken: Set<String> = []
    public let context: DecodingContext

    /// - Throws: if `value` is not an object.
    public init(_ value: JSONValue, _ context: DecodingContext) throws(QMPError) {
        try context.checkDepth()
        guard case .object(let object) = value else { throw context.wrongType(expected: "object") }
        self.object = object
        self.context = context
    }

    private mutating func take(_ key: String, _ features: SpecialFeatures) throws(QMPError) -> JSONValue? {
        guard let value = object[key] else { return nil }
        try context.policy.check(features, of: "parameter", context.member(key).path.description)
        taken.insert(key)
        return value
    }

    private func missing(_ key: String) -> QMPError {
        QMPError("Parameter '\(context.member(key).path)' is missing")
    }

    public mutating func required<T: QAPIValue>(_ key: String, _ features: SpecialFeatures = []) throws(QMPError) -> T {
        guard let value = try take(key, features) else { throw missing(key) }
        return try T(decoding: value, context.member(key))
    }

    public mutating func optional<T: QAPIValue>(_ key: String, _ features: SpecialFeatures = []) throws(QMPError) -> T? {
        guard let value = try take(key, features) else { return nil }
        return try T(decoding: value, context.member(key))
    }

    /// A number of bytes, which `key=value` text may write with a suffix (`64k`).
    public mutating func requiredSize(_ key: String, _ features: SpecialFeatures = []) throws(QMPError) -> Int {
        guard let value = try take(key, features) else { throw missing(key) }
        return try Self.size(value, context.member(key))
    }

    public mutating func optionalSize(_ key: String, _ features: SpecialFeatures = []) throws(QMPError) -> Int? {
        guard let value = try take(key, features) else { return nil }
        return try Self.size(value, context.member(key))
    }

    private static func size(_ value: JSONValue, _ context: DecodingContext) throws(QMPError) -> Int {
        if context.mode == .keyValue, case .string(let text) = value {
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

    /// - Parameter policy: which members to leave out.
    public init(_ policy: CompatPolicy = CompatPolicy()) { self.policy = policy }

    public mutating func set(_ key: String, _ value: some QAPIValue, _ features: SpecialFeatures = []) {
        if policy.hides(features) { return }
        object[key] = value.json(policy)
    }

    /// An absent member is not written at all.
    public mutating func set(_ key: String, _ value: (some QAPIValue)?, _ features: SpecialFeatures = []) {
        guard let value, !policy.hides(features) else { return }
        object[key] = value.json(policy)
    }
}
