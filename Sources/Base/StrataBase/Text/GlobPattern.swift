/// A pattern in which `*` stands for any text and `?` for any one character. Time is at most the product of both lengths.
package struct GlobPattern: Hashable, Sendable {
    package let text: String
    private let pattern: [Unicode.Scalar]

    package init(_ text: String) {
        self.text = text
        pattern = Array(text.unicodeScalars)
    }

    /// Whether it is more than the one text that it spells out.
    package var isWild: Bool { pattern.contains("*") || pattern.contains("?") }

    package func matches(_ text: String) -> Bool {
        let text = Array(text.unicodeScalars)
        var (place, position) = (0, 0)
        // Where the last star was, and the end of the text that it has swallowed so far.
        var star: (place: Int, position: Int)?
        while position < text.count {
            if place < pattern.count, pattern[place] == "*" {
                star = (place, position)
                place += 1
            } else if place < pattern.count, pattern[place] == "?" || pattern[place] == text[position] {
                place += 1
                position += 1
            } else if let last = star {
                star = (last.place, last.position + 1)
                place = last.place + 1
                position = last.position + 1
            } else {
                return false
            }
        }
        return pattern[place...].allSatisfy { $0 == "*" }
    }
}
