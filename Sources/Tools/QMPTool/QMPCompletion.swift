import QAPIRuntime
import ToolSupport

/// What may come next in a line, according to what the server says about its commands.
struct QMPCompletion {
    let schema: IntrospectedSchema
    /// Names of the nodes that there are now.
    var nodeNames: [String] = []

    /// The commands of the shell itself.
    static let ownCommands = ["help", "quit-shell"]

    struct Answer: Equatable {
        /// How much of the end of the line the candidates replace, in characters.
        var replaced: Int
        /// Sorted. A name of an argument ends in `=` or, where members follow, in a dot.
        var candidates: [String]
    }

    /// - Parameter head: what stands in front of the cursor.
    func complete(_ head: String) -> Answer {
        var words = head.split(separator: " ", omittingEmptySubsequences: true).map(String.init)
        let word = head.hasSuffix(" ") || words.isEmpty ? "" : words.removeLast()
        guard let command = words.first else { return answer(word, schema.commandNames + Self.ownCommands) }
        if command == "help" { return words.count == 1 ? answer(word, schema.commandNames) : Answer(replaced: 0, candidates: []) }
        if word.hasPrefix("{") || words.dropFirst().contains(where: { $0.hasPrefix("{") }) { return Answer(replaced: 0, candidates: []) }
        let given = (try? CommandWords.dotted(words.dropFirst().filter { $0.contains("=") }))?.object ?? JSONObject()
        if let equals = word.firstIndex(of: "=") {
            let value = String(word[word.index(after: equals)...])
            return answer(value, values(of: path(word[..<equals]), command, given))
        }
        let path = path(word[...])
        let parents = path.dropLast()
        let prefix = parents.map { $0 + "." }.joined()
        let members = schema.members(of: command, at: Array(parents), given)
        let names = members.filter { given.value(at: path.dropLast() + [$0.key]) == nil || schema.hasMembers($0.value) }
        return answer(word, names.map { prefix + $0.key + (schema.takesValue($0.value) ? "=" : ".") })
    }

    private func path(_ text: Substring) -> [String] {
        text.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
    }

    private func values(of path: [String], _ command: String, _ given: JSONObject) -> [String] {
        guard let name = path.last, let type = schema.members(of: command, at: Array(path.dropLast()), given)[name] else { return [] }
        var values = schema.values(ofType: type)
        if schema.isNodeName(member: name, type: type) { values += nodeNames }
        return values
    }

    private func answer(_ typed: String, _ choices: [String]) -> Answer {
        Answer(replaced: typed.count, candidates: Set(choices.filter { $0.hasPrefix(typed) }).sorted())
    }
}

extension JSONObject {
    fileprivate func value(at path: some Collection<String>) -> JSONValue? {
        guard let first = path.first, let value = self[first] else { return nil }
        return path.count == 1 ? value : value.object?.value(at: path.dropFirst())
    }
}

extension QMPCompletion.Answer {
    /// What all candidates begin with.
    var common: String {
        guard var common = candidates.first else { return "" }
        for candidate in candidates { common = String(zip(common, candidate).prefix { $0 == $1 }.map(\.0)) }
        return common
    }
}
