/// One command of a schema, bound to its handler: what a monitor looks up by name.
public struct CommandEntry: Sendable {
    public let name: String
    public let features: [String]
    /// May overtake the commands that came before it.
    public let allowsOutOfBand: Bool
    /// Whether success is answered; a command without an answer ends the conversation in another way.
    public let answersSuccess: Bool
    /// Decodes the arguments, runs the handler and encodes its result.
    public let run: @Sendable (_ arguments: JSONObject) async throws -> JSONValue

    public init(
        _ name: String, features: [String] = [], allowsOutOfBand: Bool = false, answersSuccess: Bool = true,
        run: @escaping @Sendable (_ arguments: JSONObject) async throws -> JSONValue
    ) {
        self.name = name
        self.features = features
        self.allowsOutOfBand = allowsOutOfBand
        self.answersSuccess = answersSuccess
        self.run = run
    }
}

/// A message that nobody asked for, sent to every monitor.
public protocol QAPIEvent: QAPIObject {
    static var eventName: String { get }
}
