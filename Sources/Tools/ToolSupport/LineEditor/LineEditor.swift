/// A line that a person edits: bytes from a terminal in raw mode go in, effects come out, and `rendering` says what the terminal has to be sent to show
/// it. A value without any terminal of its own, so that tests can type.
///
/// Keys are those of readline's emacs mode. A paste between the terminal's brackets is text, whatever it contains.
package struct LineEditor: Sendable {
    package enum Effect: Sendable, Hashable {
        /// The line looks different now.
        case changed
        /// Return: the line, which is empty again.
        case submit(String)
        /// Tab: the owner looks for completions and calls `insert` or prints what there is.
        case complete
        /// Ctrl-C.
        case interrupt
        /// Ctrl-\, which ends a program outside of raw mode.
        case quit
        /// Ctrl-D on an empty line.
        case end
        case clearScreen
        /// Ctrl-Z: the owner stops the process.
        case suspend
        /// The key does nothing here.
        case bell
    }

    package var prompt: String
    package private(set) var text: [Character] = []
    /// Characters in front of the cursor.
    package private(set) var cursor = 0
    package var history: LineHistory
    /// Where in the history the line comes from; its count for a new line.
    private var place: Int
    /// The new line, while an old one is shown.
    private var draft: [Character] = []
    private var killed: [Character] = []
    private var search: Search?
    private var input = KeyDecoder()

    private struct Search: Sendable {
        var pattern = ""
        /// The entry that was found last.
        var place: Int
        var isFailing = false
        let before: [Character]
    }

    package init(prompt: String, history: LineHistory = LineHistory()) {
        self.prompt = prompt
        self.history = history
        place = history.entries.count
    }

    package var line: String { String(text) }
    /// What stands in front of the cursor.
    package var head: String { String(text[..<cursor]) }

    /// Takes bytes as they came.
    package mutating func feed(_ bytes: some Sequence<UInt8>) -> [Effect] {
        var effects: [Effect] = []
        for byte in bytes { if let key = input.take(byte) { effects.append(act(on: key)) } }
        return effects
    }

    package mutating func insert(_ string: some StringProtocol) {
        // A combining mark joins the character in front of it.
        let joined = Array(String(text[..<cursor]) + string)
        text = joined + text[cursor...]
        cursor = joined.count
    }

    /// What was submitted in several lines is one entry of the history.
    package mutating func joinHistory(_ lines: [String]) {
        history.join(lines)
        place = history.entries.count
    }

    package mutating func clear() {
        text = []
        cursor = 0
        search = nil
        place = history.entries.count
    }

    private mutating func act(on key: Key) -> Effect {
        if search != nil, let effect = actInSearch(key) { return effect }
        switch key {
        case .text(let scalar): insert(String(Character(scalar)))
        case .pasted(let string): insert(string.split(whereSeparator: \.isNewline).joined(separator: " "))
        case .invalid: return .bell
        case .control("m"), .control("j"): return submit()
        case .control("c"): return .interrupt
        case .control("\\"): return .quit
        case .control("d") where text.isEmpty: return .end
        case .control("i"): return .complete
        case .control("l"): return .clearScreen
        case .control("z"): return .suspend
        case .control("g"): return .bell
        case .control("a"), .home: cursor = 0
        case .control("e"), .end: cursor = text.count
        case .control("b"), .left:
            guard cursor > 0 else { return .bell }
            cursor -= 1
        case .control("f"), .right:
            guard cursor < text.count else { return .bell }
            cursor += 1
        case .wordLeft: cursor = wordStart
        case .wordRight: cursor = wordEnd
        case .backspace, .control("h"):
            guard cursor > 0 else { return .bell }
            cursor -= 1
            text.remove(at: cursor)
        case .delete, .control("d"):
            guard cursor < text.count else { return .bell }
            text.remove(at: cursor)
        case .deleteWordLeft: kill(wordStart..<cursor)
        case .deleteWordRight: kill(cursor..<wordEnd)
        case .control("k"): kill(cursor..<text.count)
        case .control("u"): kill(0..<cursor)
        case .control("w"): kill(blankSeparatedStart..<cursor)
        case .control("y"): insert(String(killed))
        case .control("t"):
            guard cursor > 0, text.count > 1 else { return .bell }
            let second = min(cursor, text.count - 1)
            text.swapAt(second - 1, second)
            cursor = second + 1
        case .control("p"), .up: return moveInHistory(by: -1)
        case .control("n"), .down: return moveInHistory(by: 1)
        case .control("r"): search = Search(place: history.entries.count, before: text)
        case .control, .unknown: return .bell
        }
        return .changed
    }

    private mutating func submit() -> Effect {
        let line = line
        history.add(line)
        clear()
        draft = []
        return .submit(line)
    }

    private mutating func kill(_ range: Range<Int>) {
        killed = Array(text[range])
        text.removeSubrange(range)
        cursor = range.lowerBound
    }

    private static func isWord(_ character: Character) -> Bool { character.isLetter || character.isNumber }

    private var wordStart: Int {
        var position = cursor
        while position > 0, !Self.isWord(text[position - 1]) { position -= 1 }
        while position > 0, Self.isWord(text[position - 1]) { position -= 1 }
        return position
    }

    private var wordEnd: Int {
        var position = cursor
        while position < text.count, !Self.isWord(text[position]) { position += 1 }
        while position < text.count, Self.isWord(text[position]) { position += 1 }
        return position
    }

    private var blankSeparatedStart: Int {
        var position = cursor
        while position > 0, text[position - 1] == " " { position -= 1 }
        while position > 0, text[position - 1] != " " { position -= 1 }
        return position
    }

    private mutating func moveInHistory(by step: Int) -> Effect {
        let next = place + step
        guard (0...history.entries.count).contains(next) else { return .bell }
        if place == history.entries.count { draft = text }
        place = next
        text = next == history.entries.count ? draft : Array(history.entries[next])
        cursor = text.count
        return .changed
    }

    // MARK: Searching backwards

    /// - Returns: nil when the key ends the search and means what it always does.
    private mutating func actInSearch(_ key: Key) -> Effect? {
        guard var current = search else { return nil }
        switch key {
        case .text(let scalar):
            current.pattern.unicodeScalars.append(scalar)
            find(&current, from: min(current.place, history.entries.count - 1))
        case .control("r"): find(&current, from: current.place - 1)
        case .backspace, .control("h"):
            guard !current.pattern.isEmpty else { return .bell }
            current.pattern.removeLast()
            find(&current, from: history.entries.count - 1)
        case .control("g"), .control("c"):
            text = current.before
            cursor = text.count
            search = nil
            return .changed
        default:
            search = nil
            return nil
        }
        search = current
        return current.isFailing ? .bell : .changed
    }

    private mutating func find(_ current: inout Search, from start: Int) {
        var position = start
        while position >= 0, !history.entries[position].contains(current.pattern) { position -= 1 }
        current.isFailing = position < 0
        guard position >= 0 else { return }
        current.place = position
        place = position
        text = Array(history.entries[position])
        cursor = text.count
    }

    // MARK: Showing

    /// What a terminal is sent to show the line on the row where the cursor is. A line that is too long is shown in part, around the cursor.
    package func rendering(columns: Int) -> String {
        var shownPrompt = search.map { "(\($0.isFailing ? "failing " : "")search '\($0.pattern)') " } ?? prompt
        var promptWidth = CharacterWidth.of(shownPrompt)
        // One column stays free: the cursor may stand behind the last character.
        var room = columns - 1 - promptWidth
        if room < 8 {
            shownPrompt = ""
            promptWidth = 0
            room = max(columns - 1, 1)
        }
        var start = cursor
        var before = 0
        while start > 0, before + CharacterWidth.of(shown(start - 1)) <= room {
            before += CharacterWidth.of(shown(start - 1))
            start -= 1
        }
        var end = cursor
        var width = before
        while end < text.count, width + CharacterWidth.of(shown(end)) <= room {
            width += CharacterWidth.of(shown(end))
            end += 1
        }
        let visible = (start..<end).map { String(shown($0)) }.joined()
        let column = promptWidth + before
        return "\r\(shownPrompt)\(visible)\u{1b}[K\r" + (column > 0 ? "\u{1b}[\(column)C" : "")
    }

    /// A control character that was pasted must not reach the terminal.
    private func shown(_ index: Int) -> Character {
        guard let scalar = text[index].unicodeScalars.first, scalar.value < 0x20 || (0x7f...0x9f).contains(scalar.value) else { return text[index] }
        return "\u{fffd}"
    }
}
