/// Lines that together make one command: JSON may go on until its braces are closed.
struct GatheredLines {
    private(set) var lines: [String] = []

    var isEmpty: Bool { lines.isEmpty }

    /// Takes a line in.
    /// - Returns: the whole, once it is complete; then a new one begins.
    mutating func add(_ line: String) -> String? {
        lines.append(line)
        let text = lines.joined(separator: "\n")
        if Self.isOpen(text) { return nil }
        lines = []
        return text
    }

    /// Gives up what was gathered.
    /// - Returns: nil when there was nothing.
    mutating func take() -> String? {
        defer { lines = [] }
        return lines.isEmpty ? nil : lines.joined(separator: "\n")
    }

    /// Whether JSON that begins in a text, as a whole message or as the arguments of a command, does not end in it. Text that cannot become JSON by
    /// going on is not open: whoever parses it says what is wrong.
    static func isOpen(_ text: String) -> Bool {
        var isInJSON = false
        var isWordStart = true
        var depth = 0
        var quote: Character?
        var isEscaped = false
        for character in text {
            if isEscaped {
                isEscaped = false
                continue
            }
            switch character {
            case "\n" where quote != nil: return false
            case "\\" where quote != nil || !isInJSON: isEscaped = true
            case quote: quote = nil
            case _ where quote != nil: break
            case "\"", "'": quote = character
            case "{" where isInJSON || isWordStart:
                isInJSON = true
                depth += 1
            case "[" where isInJSON: depth += 1
            case "}" where isInJSON, "]" where isInJSON:
                depth -= 1
                if depth <= 0 { return false }
            case "#" where isWordStart && !isInJSON && depth == 0: return false
            default: break
            }
            isWordStart = character == " " || character == "\t" || character == "\n"
        }
        return isInJSON && quote == nil
    }
}
