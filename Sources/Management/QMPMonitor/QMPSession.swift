package import QAPIRuntime
package import StorageSchema

/// A command that is ready to run.
package struct QMPCall: Sendable {
    package let entry: CommandEntry
    package let arguments: JSONObject
    package let id: JSONValue?
    package let policy: CompatPolicy

    /// Runs the handler.
    /// - Returns: the answer, nil when the command has none.
    package func run() async -> JSONValue? {
        Trace.qmpCommandBegin(command: entry.name, id: id?.text() ?? "none")
        defer { Trace.qmpCommandEnd(command: entry.name, id: id?.text() ?? "none") }
        do {
            let value = try await entry.run(arguments, policy: policy)
            return entry.answersSuccess ? QMPMessage.success(value, id: id) : nil
        } catch {
            return QMPMessage.failure(QMPError(error), id: id)
        }
    }
}

/// One conversation with a client: bytes come in, answers and calls come out. No sockets, no clocks, no tasks.
///
/// Messages are answered in the order in which they came, errors included; out-of-band calls alone overtake. Whether a message is
/// acceptable is decided when its turn comes, because the message before it may be the one that ends the negotiation.
package struct QMPSession: Sendable {
    package enum Step: Sendable {
        case reply(JSONValue)
        case call(QMPCall)
    }

    /// A client that sends this many messages ahead of the answers is not read from until some are answered.
    package static let queueLimit = 8

    private let commands: [String: CommandEntry]
    private let version: VersionInfo
    private let capabilities: [QMPCapability]
    private let policy: CompatPolicy
    private var parser: JSONStreamParser
    private var queue: [Result<JSONValue, JSONError>] = []
    private var queueStart = 0
    /// Whether the client has ended the negotiation; events go only to those who have.
    package private(set) var isNegotiated = false
    private var allowsOutOfBand = false

    /// - Parameters:
    ///   - capabilities: what the greeting offers.
    ///   - policy: what becomes of deprecated and unstable parts.
    package init(
        commands: [String: CommandEntry], version: VersionInfo, capabilities: [QMPCapability] = [.oob], policy: CompatPolicy = CompatPolicy(),
        limits: JSONLimits = JSONLimits()
    ) {
        self.commands = commands
        self.version = version
        self.capabilities = capabilities
        self.policy = policy
        parser = JSONStreamParser(limits: limits)
    }

    package var greeting: JSONValue { QMPMessage.greeting(version: version, capabilities: capabilities) }

    /// Messages that wait for their turn.
    package var queuedCount: Int { queue.count - queueStart }

    /// Takes bytes from the client.
    /// - Returns: the out-of-band calls and replies among what the bytes completed; they do not wait for their turn.
    package mutating func receive(_ bytes: some Sequence<UInt8>) -> [Step] {
        var messages: [Result<JSONValue, JSONError>] = []
        parser.feed(bytes, into: &messages)
        var overtaking: [Step] = []
        for message in messages {
            if allowsOutOfBand, case .success(let value) = message, value["exec-oob"] != nil, value["execute"] == nil {
                overtaking.append(step(for: message))
            } else {
                queue.append(message)
            }
        }
        return overtaking
    }

    /// The next message's turn; nil when none waits. Call it again only after what it gave is answered.
    package mutating func next() -> Step? {
        guard queueStart < queue.count else { return nil }
        let message = queue[queueStart]
        queueStart += 1
        if queueStart == queue.count {
            queue.removeAll(keepingCapacity: queue.capacity <= 64)
            queueStart = 0
        }
        return step(for: message)
    }

    private mutating func step(for message: Result<JSONValue, JSONError>) -> Step {
        let value: JSONValue
        switch message {
        case .failure(let error): return .reply(QMPMessage.failure(QMPError(error.message), id: nil))
        case .success(let parsed): value = parsed
        }
        do throws(QMPError) {
            let request = try QMPRequest(value, allowsOutOfBand: allowsOutOfBand)
            if request.isOutOfBand, request.command == "qmp_capabilities" { throw Self.notOutOfBand(request.command) }
            if request.command == "qmp_capabilities" || !isNegotiated {
                try negotiate(request)
                return .reply(QMPMessage.success(.object(JSONObject()), id: request.id))
            }
            guard let entry = commands[request.command] else {
                throw QMPError("The command \(request.command) has not been found", class: .commandNotFound)
            }
            if request.isOutOfBand, !entry.allowsOutOfBand { throw Self.notOutOfBand(request.command) }
            return .call(QMPCall(entry: entry, arguments: request.arguments, id: request.id, policy: policy))
        } catch {
            return .reply(QMPMessage.failure(error, id: value["id"]))
        }
    }

    private static func notOutOfBand(_ command: String) -> QMPError { QMPError("The command \(command) does not support OOB") }

    private mutating func negotiate(_ request: QMPRequest) throws(QMPError) {
        if isNegotiated { throw QMPError("Capabilities negotiation is already complete, command ignored", class: .commandNotFound) }
        guard request.command == "qmp_capabilities" else {
            throw QMPError("Expecting capabilities negotiation with 'qmp_capabilities'", class: .commandNotFound)
        }
        let wanted = try QmpCapabilitiesArguments(decoding: .object(request.arguments), policy: policy).enable ?? []
        for capability in wanted where !capabilities.contains(capability) {
            throw QMPError("Capability '\(capability.rawValue)' not available")
        }
        allowsOutOfBand = wanted.contains(.oob)
        isNegotiated = true
    }
}
