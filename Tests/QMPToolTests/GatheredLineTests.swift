import Testing

@testable import QMPTool

@Suite("lines that belong together")
struct GatheredLineTests {
    @Test("JSON goes on until its braces are closed; whatever cannot become JSON that way is complete", arguments: [
        ("quit", false), ("{", true), ("{\"execute\": \"quit\"", true), ("{\"execute\": \"quit\"}", false), ("blockdev-add {", true),
        ("blockdev-add {\"a\": [1,\n2", true), ("blockdev-add {\"a\": [1,\n2]", true), ("blockdev-add {\"a\": [1,\n2]}", false),
        ("blockdev-add {'a': '}'", true), ("blockdev-add {'a': 'it", false), ("blockdev-add {\"a\": \"\\\"}\"", true), ("a b={", false), ("a 'b {'", false),
        ("a 'open", false), ("a \\{", false), ("# {", false), ("}", false), ("{}}", false), ("{ ]", false), ("", false),
    ] as [(String, Bool)])
    func open(text: String, isOpen: Bool) { #expect(GatheredLines.isOpen(text) == isOpen) }

    @Test("lines come out together once they are complete")
    func gathering() {
        var gathered = GatheredLines()
        #expect(gathered.add("quit") == "quit" && gathered.isEmpty)
        #expect(gathered.add("blockdev-add {") == nil && !gathered.isEmpty)
        #expect(gathered.add("}") == "blockdev-add {\n}" && gathered.isEmpty)
        #expect(gathered.add("{") == nil && gathered.take() == "{" && gathered.take() == nil)
    }
}
