/// What was typed before, oldest first. Bounded.
package struct LineHistory: Sendable, Hashable {
    package static let limit = 1000
    /// Longer lines are not kept.
    package static let longestLine = 8192  // bytes

    package private(set) var entries: [String] = []

    package init(_ lines: some Sequence<String> = []) {
        for line in lines { add(line) }
    }

    /// Puts one line in the place of those that were added last and together mean one thing.
    package mutating func join(_ lines: [String]) {
        guard lines.count > 1 else { return }
        for line in lines.reversed() where entries.last == line { entries.removeLast() }
        add(lines.joined(separator: " "))
    }

    /// Adds a line, unless it is empty or says what the last one said. A line that begins with a blank is not kept, as in shells, and neither is one
    /// that speaks of a secret.
    package mutating func add(_ line: String) {
        guard let first = line.first, first != " ", line != entries.last, line.utf8.count <= Self.longestLine, !line.contains("\n"),
            !line.contains("secret")
        else { return }
        entries.append(line)
        if entries.count > Self.limit { entries.removeFirst(entries.count - Self.limit) }
    }
}
