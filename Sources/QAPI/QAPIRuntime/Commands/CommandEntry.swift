/// One command of a schema, bound to its handler: what a monitor looks up by name.
public struct CommandEntry: Sendable {
    /// What the schema says about running a command, beside its arguments and result.
    public struct Options: OptionSet, Hashable, Sendable {
        public let rawValue: UInt8
        public init(rawValue: UInt8) { self.rawValue = rawValue }

        /// May overtake the commands that came before it (`allow-oob`).
        public static let outOfBand = Self(rawValue: 1 << 0)
        /// May run before the program is fully set up (`allow-preconfig`).
        public static let preconfig = Self(rawValue: 1 << 1)
        /// May wait for something that takes time without holding others up (`coroutine`). Every handler of ours may.
        public static let coroutine = Self(rawValue: 1 << 2)
        /// Success is not answered; the command ends the conversation in another way (`success-response: false`).
        public static let silent = Self(rawValue: 1 << 3)
        /// The handler gets and gives raw JSON (`gen: false`).
        public static let untyped = Self(rawValue: 1 << 4)
    }

    /// Decodes the arguments, runs the handler and encodes its result, all under one policy.
    public typealias Body = @Sendable (_ arguments: JSONObject, _ policy: CompatPolicy) async throws -> JSONValue

    public let name: String
    /// All features, special or not.
    public let features: [String]
    public let options: Options
    private let body: Body

    public init(_ name: String, _ options: Options = [], features: [String] = [], body: @escaping Body) {
        self.name = name
        self.features = features
        self.options = options
        self.body = body
    }

    /// A command with arguments and a result.
    public init<Arguments: QAPIObject, Answer: QAPIValue>(
        _ name: String, _ options: Options = [], features: [String] = [],
        mapping handler: @escaping @Sendable (Arguments) async throws -> Answer
    ) {
        self.init(name, options, features: features) { arguments, policy in
            try await handler(Arguments(decoding: .object(arguments), policy: policy)).json(policy)
        }
    }

    /// A command with arguments and no result.
    public init<Arguments: QAPIObject>(
        _ name: String, _ options: Options = [], features: [String] = [],
        taking handler: @escaping @Sendable (Arguments) async throws -> Void
    ) {
        self.init(name, options, features: features) { arguments, policy in
            try await handler(Arguments(decoding: .object(arguments), policy: policy))
            return .object(JSONObject())
        }
    }

    /// A command without arguments that has a result.
    public init<Answer: QAPIValue>(
        _ name: String, _ options: Options = [], features: [String] = [], giving handler: @escaping @Sendable () async throws -> Answer
    ) {
        self.init(name, options, features: features) { arguments, policy in
            _ = try QAPIEmpty(decoding: .object(arguments), policy: policy)
            return try await handler().json(policy)
        }
    }

    /// A command without arguments and without a result.
    public init(_ name: String, _ options: Options = [], features: [String] = [], doing handler: @escaping @Sendable () async throws -> Void) {
        self.init(name, options, features: features) { arguments, policy in
            _ = try QAPIEmpty(decoding: .object(arguments), policy: policy)
            try await handler()
            return .object(JSONObject())
        }
    }

    /// A command whose handler deals in raw JSON.
    public init(
        _ name: String, _ options: Options = [], features: [String] = [],
        raw handler: @escaping @Sendable (JSONObject) async throws -> JSONValue
    ) {
        self.init(name, options, features: features) { arguments, policy in
            try await CompatPolicy.$ofRunningCommand.withValue(policy) { try await handler(arguments) }
        }
    }

    /// May overtake the commands that came before it.
    public var allowsOutOfBand: Bool { options.contains(.outOfBand) }
    /// Whether success is answered.
    public var answersSuccess: Bool { !options.contains(.silent) }
    public var specialFeatures: SpecialFeatures { SpecialFeatures(names: features) }

    /// Decodes the arguments, runs the handler and encodes its result.
    /// - Parameter policy: what becomes of a deprecated or unstable command, argument, value or member of the result.
    /// - Throws: a `QMPError` of the class `CommandNotFound` when the policy refuses the command itself.
    public func run(_ arguments: JSONObject, policy: CompatPolicy = CompatPolicy()) async throws -> JSONValue {
        try policy.check(specialFeatures, of: "command", name, class: .commandNotFound)
        return try await body(arguments, policy)
    }
}

/// A message that nobody asked for, sent to every monitor.
public protocol QAPIEvent: QAPIObject {
    static var eventName: String { get }
    /// The special features of the event as a whole; those of its members are in the encoding.
    static var specialFeatures: SpecialFeatures { get }
}

extension QAPIEvent {
    public static var specialFeatures: SpecialFeatures { [] }
}
