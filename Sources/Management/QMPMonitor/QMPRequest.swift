import QAPIRuntime

/// What a client asked for, taken from one message.
struct QMPRequest: Hashable, Sendable {
    let command: String
    let arguments: JSONObject
    let id: JSONValue?
    let isOutOfBand: Bool

    /// - Parameter allowsOutOfBand: whether the client switched on commands that overtake others.
    /// - Throws: the sentence that says which member of the message is wrong.
    init(_ message: JSONValue, allowsOutOfBand: Bool) throws(QMPError) {
        guard case .object(let object) = message else { throw QMPError("QMP input must be a JSON object") }
        var command: String?
        var arguments = JSONObject()
        var isOutOfBand = false
        for member in object.members {
            switch member.key {
            case "execute", "exec-oob":
                if member.key == "exec-oob" {
                    guard allowsOutOfBand else { throw QMPError("QMP input member 'exec-oob' is unexpected") }
                    isOutOfBand = true
                }
                guard case .string(let name) = member.value else { throw QMPError("QMP input member '\(member.key)' must be a string") }
                if command != nil { throw QMPError("QMP input member 'execute' clashes with 'exec-oob'") }
                command = name
            case "arguments":
                guard case .object(let members) = member.value else { throw QMPError("QMP input member 'arguments' must be an object") }
                arguments = members
            case "id": break
            default: throw QMPError("QMP input member '\(member.key)' is unexpected")
            }
        }
        guard let command else { throw QMPError("QMP input lacks member 'execute'") }
        self.command = command
        self.arguments = arguments
        self.id = object["id"]
        self.isOutOfBand = isOutOfBand
    }
}
