import BlockGraph
import StrataBase

/// A tree of nodes as text, as Graphviz's language, or as a picture.
struct GraphDrawing {
    struct Box: Hashable {
        var title: String
        var detail: String
        /// The edge that leads here; nil for the root.
        var edge: String?
        /// Edges from the root.
        var level: Int
        /// The place of the box above in `boxes`.
        var parent: Int?
    }

    /// Parents before children, in the order in which they are drawn.
    private(set) var boxes: [Box] = []

    init(boxes: [Box]) { self.boxes = boxes }

    init(_ root: BlockNode) {
        var names = NodeDescriptions()
        // A stack of its own: chains can be thousands deep.
        var stack: [(node: BlockNode, edge: String?, level: Int, parent: Int?)] = [(root, nil, 0, nil)]
        while let (node, edge, level, parent) = stack.popLast() {
            let place = boxes.count
            boxes.append(
                Box(
                    title: names.filename(of: node), detail: "\(node.formatName), \(ByteSize.humanReadable(node.length))", edge: edge, level: level, parent: parent))
            // The backing file comes last, so that a chain reads downwards.
            for child in node.children.reversed() { stack.append((child.node, child.name, level + 1, place)) }
        }
    }

    var text: String {
        boxes.map { box in
            String(repeating: "  ", count: box.level) + (box.edge.map { "\($0): " } ?? "") + "\(box.title) (\(box.detail))\n"
        }.joined()
    }

    var dot: String {
        var text = "digraph image {\n  node [shape=box, fontname=\"sans-serif\"];\n"
        func quoted(_ part: String) -> String { part.map { $0 == "\"" || $0 == "\\" ? "\\\($0)" : String($0) }.joined() }
        for (place, box) in boxes.enumerated() {
            text += "  n\(place) [label=\"\(quoted(box.title))\\n\(quoted(box.detail))\"];\n"
            if let parent = box.parent { text += "  n\(parent) -> n\(place) [label=\"\(quoted(box.edge ?? ""))\"];\n" }
        }
        return text + "}\n"
    }

    /// Sizes in the picture's own units.
    private static let (rowHeight, boxHeight, indentation, letterWidth, margin) = (64, 44, 48, 8, 16)

    var svg: String {
        func escaped(_ part: String) -> String {
            part.map { $0 == "&" ? "&amp;" : $0 == "<" ? "&lt;" : $0 == ">" ? "&gt;" : $0 == "\"" ? "&quot;" : String($0) }.joined()
        }
        func place(_ index: Int) -> (x: Int, y: Int) { (Self.margin + boxes[index].level * Self.indentation, Self.margin + index * Self.rowHeight) }
        func width(_ box: Box) -> Int { max(box.title.count, box.detail.count) * Self.letterWidth + 2 * Self.margin }
        let right = boxes.indices.map { place($0).x + width(boxes[$0]) }.max() ?? 0
        var text = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"\(right + Self.margin)\" height=\"\(boxes.count * Self.rowHeight + Self.margin)\" font-family=\"monospace\" font-size=\"13\">\n"
        for (index, box) in boxes.enumerated() {
            let (x, y) = place(index)
            if let parent = box.parent {
                let from = place(parent)
                let (trunk, middle) = (from.x + Self.indentation / 2, y + Self.boxHeight / 2)
                text += "<path d=\"M\(trunk) \(from.y + Self.boxHeight) V\(middle) H\(x)\" fill=\"none\" stroke=\"black\"/>\n"
                text += "<text x=\"\(x)\" y=\"\(y - 3)\" font-size=\"10\">\(escaped(box.edge ?? ""))</text>\n"
            }
            text += "<rect x=\"\(x)\" y=\"\(y)\" width=\"\(width(box))\" height=\"\(Self.boxHeight)\" rx=\"4\" fill=\"white\" stroke=\"black\"/>\n"
            text += "<text x=\"\(x + Self.margin)\" y=\"\(y + 18)\">\(escaped(box.title))</text>\n"
            text += "<text x=\"\(x + Self.margin)\" y=\"\(y + 35)\" fill=\"gray\">\(escaped(box.detail))</text>\n"
        }
        return text + "</svg>\n"
    }
}
