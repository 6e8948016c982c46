import Foundation
import FoundationXML
@testable import ImgTool
import Testing

@Suite("drawings of images")
struct GraphDrawingTests {
    private static let drawing = GraphDrawing(boxes: [
        .init(title: "top \"<&>\".qcow2", detail: "qcow2, 1 MiB", edge: nil, level: 0, parent: nil), .init(title: "top", detail: "file, 192 KiB", edge: "file", level: 1, parent: 0),
        .init(title: "base", detail: "raw, 1 MiB", edge: "backing", level: 1, parent: 0),
    ])

    @Test("text indents what lies below and names the edges")
    func text() {
        #expect(Self.drawing.text == "top \"<&>\".qcow2 (qcow2, 1 MiB)\n  file: top (file, 192 KiB)\n  backing: base (raw, 1 MiB)\n")
    }

    @Test("dot quotes names, and has a line for each node and edge")
    func dot() {
        let dot = Self.drawing.dot
        #expect(dot.contains("n0 [label=\"top \\\"<&>\\\".qcow2\\nqcow2, 1 MiB\"];"))
        #expect(dot.contains("n0 -> n2 [label=\"backing\"];"))
    }

    @Test("a picture is well-formed XML, whatever names there are")
    func svg() throws {
        let parser = XMLParser(data: Data(Self.drawing.svg.utf8))
        #expect(parser.parse(), "\(String(describing: parser.parserError))")
    }

    @Test("the chain of an image is drawn from the top down")
    func command() throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare(CommandScript.standardImages)
        let outcome = try pair.runOurs(["graph", "c.qcow2"])
        let lines = outcome.output.split(separator: "\n").map { $0.replacing(#/ \(.*/#, with: "") }
        #expect(lines == ["c.qcow2", "  file: c.qcow2", "  backing: b.qcow2", "    file: b.qcow2"], "\(outcome)")
        #expect(try pair.runOurs(["graph", "--output=xml", "c.qcow2"]).status == 1)
    }
}
