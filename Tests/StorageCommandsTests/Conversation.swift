import Foundation
import QAPIRuntime
import Testing

/// The same commands given to QEMU's storage daemon and to ours.
enum Conversation {
    struct Command: Sendable {
        let name: String
        let arguments: JSONValue
        init(_ name: String, _ arguments: JSONValue = [:]) {
            self.name = name
            self.arguments = arguments
        }
    }

    /// QEMU's answers, in the order of the commands.
    static func askQEMU(_ commands: [Command]) throws -> [JSONValue] {
        var input = #"{"execute": "qmp_capabilities"}"# + "\n"
        for command in commands + [Command("quit")] {
            let message: JSONValue = ["execute": .string(command.name), "arguments": command.arguments]
            input += message.text() + "\n"
        }
        let output = try run("qemu-storage-daemon", ["--chardev", "stdio,id=c", "--monitor", "c"], input: input)
        // Making images is announced on the same stream.
        let messages = try output.split(whereSeparator: \.isNewline).filter { $0.hasPrefix("{") }.map { try JSONValue(parsing: String($0)) }
        let answers = messages.filter { $0["return"] != nil || $0["error"] != nil }
        return Array(answers.dropFirst().prefix(commands.count))
    }

    /// Both sides' answers with what is accidental made equal.
    static func compare(_ commands: [Command]) async throws {
        let expected = try askQEMU(commands)
        try #require(expected.count == commands.count)
        for (command, (ours, theirs)) in zip(commands, zip(try await askOurs(commands), expected)) {
            #expect(normal(withoutAdvice(ours, theirs)) == normal(theirs), "\(command.name) \(command.arguments)")
        }
    }

    /// Our refusals of what is busy go on after QEMU's sentence: who holds it, and what to do.
    static func withoutAdvice(_ ours: JSONValue, _ theirs: JSONValue) -> JSONValue {
        guard let long = ours["error"]?["desc"]?.string, let short = theirs["error"]?["desc"]?.string, long.hasPrefix(short + ". ") else { return ours }
        return theirs
    }

    /// Our answers, from one service.
    static func askOurs(_ commands: [Command]) async throws -> [JSONValue] {
        let fixture = try ServiceFixture()
        var answers: [JSONValue] = []
        for command in commands { answers.append(await fixture.execute(command.name, command.arguments)) }
        try await fixture.stop()
        return answers
    }

    /// Made-up node names become one, and lists of nodes get an order of their own.
    static func normal(_ value: JSONValue) -> JSONValue {
        switch value {
        case .string(let text): return .string(text.hasPrefix("#block") ? "#block" : text)
        case .array(let elements): return .array(elements.map(normal).sorted { sortKey($0) < sortKey($1) })
        case .object(let object):
            var result = JSONObject()
            for key in object.members.map(\.key).sorted() { result[key] = object[key].map(normal) }
            return .object(result)
        default: return value
        }
    }

    private static func sortKey(_ value: JSONValue) -> String { value.text() }
}
