/// Collects lines of Swift with their indentation.
struct SwiftPrinter {
    private(set) var text = ""
    private var depth = 0
    /// The depths of the bodies of open switch statements.
    private var switches: [Int] = []

    mutating func line(_ line: String = "") {
        // The cases of a switch stand under the word `switch`.
        let isCase = switches.last == depth && (line.hasPrefix("case ") || line.hasPrefix("default:"))
        if !line.isEmpty { text += String(repeating: "    ", count: isCase ? depth - 1 : depth) + line }
        text += "\n"
    }

    /// A line that ends in a brace, what stands between the braces, and the closing one.
    mutating func block(_ opening: String, _ body: (inout SwiftPrinter) -> Void) {
        line(opening + " {")
        depth += 1
        let isSwitch = opening.hasPrefix("switch ")
        if isSwitch { switches.append(depth) }
        body(&self)
        if isSwitch { switches.removeLast() }
        depth -= 1
        line("}")
    }

    /// A documentation comment; nothing when there is no text.
    mutating func documentation(_ lines: [String]) {
        var lines = lines[...]
        while let first = lines.first, first.isEmpty { lines.removeFirst() }
        while let last = lines.last, last.isEmpty { lines.removeLast() }
        for text in lines { line(text.isEmpty ? "///" : "/// \(text)") }
    }
}
