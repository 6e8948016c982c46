import QAPIRuntime

/// JSON for people: indented and, at a terminal, coloured.
struct ColouredJSON {
    let isColoured: Bool

    func text(_ value: JSONValue) -> String { coloured(value, indentation: "") }

    func error(_ text: String) -> String { paint(text, "31") }
    func event(_ text: String) -> String { paint(text, "33") }

    private func paint(_ text: String, _ code: String) -> String { isColoured ? "\u{1b}[\(code)m\(text)\u{1b}[0m" : text }

    private func coloured(_ value: JSONValue, indentation: String) -> String {
        let inner = indentation + "    "
        switch value {
        case .object(let object):
            if object.isEmpty { return "{}" }
            let lines = object.members.map { inner + paint(JSONValue.string($0.key).text(), "34") + ": " + coloured($0.value, indentation: inner) }
            return "{\n" + lines.joined(separator: ",\n") + "\n" + indentation + "}"
        case .array(let elements):
            if elements.isEmpty { return "[]" }
            return "[\n" + elements.map { inner + coloured($0, indentation: inner) }.joined(separator: ",\n") + "\n" + indentation + "]"
        case .string: return paint(value.text(), "32")
        default: return paint(value.text(), "36")
        }
    }
}
