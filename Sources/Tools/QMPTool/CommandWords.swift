import QAPIRuntime
import ToolSupport

/// A command as a person types it: `NAME`, then its arguments as one JSON object or as words `key=value`.
struct CommandWords: Hashable {
    enum Arguments: Hashable {
        /// JSON needs no types: it has its own.
        case json(JSONObject)
        case words([String])
    }
    let name: String
    let arguments: Arguments

    /// - Parameter words: the name and what follows it; not empty.
    init(_ words: [String]) throws(ToolFailure) {
        guard let name = words.first else { throw ToolFailure("No command given") }
        self.name = name
        guard words.count > 1, words[1].hasPrefix("{") else {
            arguments = .words(Array(words.dropFirst()))
            return
        }
        if words.count > 2 { throw ToolFailure("Nothing may follow the arguments of '\(name)', which are JSON: '\(words[2])'") }
        let value: JSONValue
        do throws(JSONError) {
            value = try JSONValue(parsing: words[1])
        } catch {
            throw ToolFailure("The arguments of '\(name)' are not JSON: \(error) at byte \(error.offset)")
        }
        guard case .object(let object) = value else { throw ToolFailure("The arguments of '\(name)' must be an object") }
        arguments = .json(object)
    }

    /// Splits a line at blanks, as a shell does it: quotes keep blanks, a backslash keeps any character. JSON that starts with a brace
    /// goes to the end of the line.
    static func split(_ line: String) throws(ToolFailure) -> [String] {
        var words: [String] = []
        var rest = line[...]
        while true {
            rest = rest.drop { $0 == " " || $0 == "\t" }
            guard let first = rest.first else { return words }
            if first == "{" {
                words.append(String(rest))
                return words
            }
            words.append(try word(&rest))
        }
    }

    private static func word(_ rest: inout Substring) throws(ToolFailure) -> String {
        var word = ""
        var quote: Character?
        while let next = rest.first {
            if quote == nil, next == " " || next == "\t" { break }
            rest.removeFirst()
            if next == quote {
                quote = nil
            } else if quote == nil, next == "'" || next == "\"" {
                quote = next
            } else if next == "\\", quote != "'" {
                guard let escaped = rest.popFirst() else { throw ToolFailure("Nothing follows the backslash at the end of the line") }
                word.append(escaped)
            } else {
                word.append(next)
            }
        }
        if let quote { throw ToolFailure("Missing closing \(quote)") }
        return word
    }

    /// The arguments as text that the parser of dotted keys takes; each word is one parameter, commas and all.
    static func dotted(_ words: [String]) throws(ToolFailure) -> JSONValue {
        let text = words.map { word in word.map { $0 == "," ? ",," : String($0) }.joined() }.joined(separator: ",")
        do throws(QMPError) {
            return try KeyValueParser.parse(text)
        } catch {
            throw ToolFailure(error.message)
        }
    }
}
