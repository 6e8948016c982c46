import Testing
import ToolSupport

/// A terminal's row, as far as the editor uses one.
private struct Row {
    var cells: [Character] = []
    var column = 0

    mutating func receive(_ text: String) {
        var rest = Array(text)[...]
        while let next = rest.popFirst() {
            switch next {
            case "\r": column = 0
            case "\u{1b}":
                rest.removeFirst()
                var number = ""
                while let digit = rest.first, digit.isNumber {
                    number.append(digit)
                    rest.removeFirst()
                }
                switch rest.popFirst() {
                case "K": cells.removeSubrange(min(column, cells.count)...)
                case "C": column += Int(number) ?? 1
                default: Issue.record("an escape sequence that the row does not know in \(text)")
                }
            default:
                while cells.count <= column { cells.append(" ") }
                cells[column] = next
                column += 1
            }
        }
    }
}

@Suite("line editor")
struct LineEditorTests {
    private func typed(_ text: String, history: [String] = []) -> LineEditor {
        var editor = LineEditor(prompt: "> ", history: LineHistory(history))
        _ = editor.feed(text.utf8)
        return editor
    }

    @Test("keys edit as in readline", arguments: [
        ("abc", "abc", 3), ("abc\u{1}x", "xabc", 1), ("abc\u{1}\u{5}x", "abcx", 4), ("abc\u{2}\u{2}x", "axbc", 2), ("abc\u{1b}[D\u{1b}[Dx", "axbc", 2),
        ("abc\u{1b}[Hx\u{1b}[Fy", "xabcy", 5), ("abc\u{1b}[1~\u{1b}[3~", "bc", 0), ("abc\u{7f}", "ab", 2), ("abc\u{1}\u{4}", "bc", 0),
        ("one two\u{17}", "one ", 4), ("one two\u{17}\u{19}\u{19}", "one twotwo", 10), ("one two\u{15}", "", 0), ("one two\u{1}\u{b}\u{19}", "one two", 7),
        ("one two\u{1b}b\u{1b}b\u{1b}fx", "onex two", 4), ("one two\u{1b}[1;5Dx", "one xtwo", 5), ("ab\u{14}", "ba", 2), ("é中\u{7f}", "é", 1),
        ("e\u{301}\u{7f}", "", 0), ("\u{1b}[200~a\rb\tc\u{1b}[201~d", "a b\tcd", 6), ("\u{1b}[99~x", "x", 1),
        ("one two\u{1b}\u{7f}", "one ", 4), ("one two\u{1}\u{1b}d", " two", 0),
    ])
    func keys(input: String, line: String, cursor: Int) {
        let editor = typed(input)
        #expect(editor.line == line)
        #expect(editor.cursor == cursor)
    }

    @Test("lines that belong together are one entry of the history, and none when they speak of a secret")
    func joined() {
        var editor = typed("quit\r{\r  \"a\": 1\r}\r")
        editor.joinHistory(["{", "  \"a\": 1", "}"])
        #expect(editor.history.entries == ["quit", "{   \"a\": 1 }"])
        editor = typed("quit\robject-add {\r\"qom-type\": \"secret\"}\r")
        editor.joinHistory(["object-add {", "\"qom-type\": \"secret\"}"])
        #expect(editor.history.entries == ["quit"])
        #expect(editor.feed("\u{1b}[A".utf8) == [.changed] && editor.line == "quit")
        #expect(editor.feed([0x1a]) == [.suspend])
    }

    @Test("what cannot be done rings the bell", arguments: ["\u{7f}", "\u{2}", "\u{6}", "\u{1b}[A", "\u{1b}[B", "\u{7}", "\u{1b}[99~"])
    func bells(input: String) {
        var editor = LineEditor(prompt: "> ")
        #expect(editor.feed(input.utf8) == [.bell])
    }

    @Test("return submits, Ctrl-C interrupts, Ctrl-\\ quits, Ctrl-D ends only an empty line, tab asks for completion")
    func effects() {
        var editor = LineEditor(prompt: "> ")
        #expect(editor.feed("a\r".utf8) == [.changed, .submit("a")])
        #expect(editor.line == "")
        #expect(editor.feed("\u{3}".utf8) == [.interrupt])
        #expect(editor.feed("\u{1c}".utf8) == [.quit])
        #expect(editor.feed("\t".utf8) == [.complete])
        #expect(editor.feed("\u{c}".utf8) == [.clearScreen])
        #expect(editor.feed("\u{4}".utf8) == [.end])
        #expect(editor.feed("a\u{4}".utf8) == [.changed, .bell])
    }

    @Test("up and down go through the history and come back to the new line")
    func history() {
        #expect(typed("new\u{10}", history: ["one", "two"]).line == "two")
        #expect(typed("new\u{10}\u{10}", history: ["one", "two"]).line == "one")
        #expect(typed("new\u{10}\u{10}\u{e}\u{e}", history: ["one", "two"]).line == "new")
        #expect(typed("new\u{1b}[A\u{1b}OB", history: ["one", "two"]).line == "new")
    }

    @Test("Ctrl-R finds older lines; Ctrl-G goes back to what was typed")
    func search() {
        let history = ["alpha one", "beta", "alpha two"]
        #expect(typed("x\u{12}al", history: history).line == "alpha two")
        #expect(typed("x\u{12}al\u{12}", history: history).line == "alpha one")
        #expect(typed("x\u{12}al\u{12}\u{7}", history: history).line == "x")
        #expect(typed("x\u{12}bet\u{1}y", history: history).line == "ybeta")
        var editor = typed("\u{12}", history: history)
        #expect(editor.feed("zz".utf8) == [.bell, .bell])
        var row = Row()
        row.receive(editor.rendering(columns: 80))
        #expect(String(row.cells).hasPrefix("(failing search 'zz')"))
    }

    @Test("the history is bounded, and keeps neither repetitions nor secrets")
    func bounded() {
        var history = LineHistory()
        for line in ["a", "a", " b", "", "object-add qom-type=secret,data=x", "c"] { history.add(line) }
        #expect(history.entries == ["a", "c"])
        for number in 0..<3000 { history.add("line \(number)") }
        #expect(history.entries.count == LineHistory.limit)
        #expect(history.entries.last == "line 2999")
    }

    @Test("bytes may come in any portions, and any bytes may come", arguments: 0..<50)
    func anyBytes(seed: UInt64) {
        var state = seed &* 0x9e37_79b9_7f4a_7c15 | 1
        func random(_ limit: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % limit
        }
        let interesting: [UInt8] = [0x1b, 0x5b, 0x41, 0x43, 0x44, 0x7e, 0x31, 0x33, 0xc3, 0xa9, 0xe4, 0xb8, 0xad, 0xff, 0x12, 0x07, 0x0d, 0x09, 0x61, 0x20, 0x7f]
        let bytes = (0..<400).map { _ in random(3) == 0 ? UInt8(random(256)) : interesting[random(interesting.count)] }
        var whole = LineEditor(prompt: "> ", history: LineHistory(["one", "two"])), parts = whole
        let all = whole.feed(bytes)
        var some: [LineEditor.Effect] = []
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = min(rest.count, 1 + random(7))
            some += parts.feed(rest.prefix(count))
            rest = rest.dropFirst(count)
        }
        #expect(all == some)
        #expect(whole.line == parts.line && whole.cursor == parts.cursor)
        #expect((0...whole.text.count).contains(whole.cursor))
        for columns in [1, 5, 20, 80] {
            var row = Row()
            row.receive(whole.rendering(columns: columns))
            #expect(row.cells.count < max(columns, 2))
        }
    }

    @Test("a long line is shown around the cursor, in whatever width there is", arguments: [4, 12, 20, 80])
    func narrow(columns: Int) {
        var editor = typed(String((0..<100).map { Character(String($0 % 10)) }))
        for _ in 0..<120 {
            var row = Row()
            row.receive(editor.rendering(columns: columns))
            #expect(row.cells.count < columns && row.column < columns)
            // What stands in front of the cursor is what was typed there.
            if editor.cursor > 0, row.column > 0 { #expect(row.cells[row.column - 1] == editor.text[editor.cursor - 1]) }
            _ = editor.feed("\u{2}".utf8)
        }
    }

    @Test("control characters in a pasted line do not reach the terminal")
    func hostilePaste() {
        let editor = typed("\u{1b}[200~a\u{7}\u{1b}]0;x\u{1b}[201~")
        let shown = editor.rendering(columns: 80)
        #expect(!shown.contains("\u{7}") && !shown.contains("\u{1b}]"))
    }
}
