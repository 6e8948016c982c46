import BlockGraph
import StrataBase

/// One line of a map: neighbours of the same kind together.
struct MapEntry: Sendable {
    var start: Int
    var byteCount = 0
    var depth = 0
    /// Some layer of the chain decides the content.
    var isPresent = false
    var isZero = false
    var isData = false
    var isCompressed = false
    var offset: Int?
    var filename: String?

    init(start: Int) { self.start = start }

    init(_ extent: PaddedImage.Extent, at position: Int, filename: String?) {
        start = position
        byteCount = extent.byteCount
        depth = extent.depth
        isPresent = extent.flags.contains(.allocated)
        isZero = extent.isZero
        isData = extent.flags.contains(.data)
        isCompressed = extent.flags.contains(.compressed)
        offset = extent.offset
        self.filename = filename
    }

    /// Takes in what follows if it is of the same kind and lies next to it in the file.
    mutating func absorb(_ next: MapEntry) -> Bool {
        guard byteCount > 0, next.depth == depth, next.isPresent == isPresent, next.isZero == isZero, next.isData == isData,
            next.isCompressed == isCompressed, next.filename == filename, next.offset == offset.map({ $0 + byteCount })
        else { return false }
        byteCount += next.byteCount
        return true
    }

    static let header = "Offset          Length          Mapped to       File\n"

    /// The line for people; nil for what reads as zero.
    /// - Throws: for data that lies nowhere in one piece.
    func line() throws(BlockError) -> String? {
        guard isData, !isZero else { return nil }
        guard let offset, let filename else { throw BlockError(.unsupported, "File contains external, encrypted or compressed clusters.") }
        return Self.column(start) + Self.column(byteCount) + Self.column(offset) + filename + "\n"
    }

    /// C's `%#-16x`: zero has no prefix.
    private static func column(_ value: Int) -> String {
        let text = value == 0 ? "0" : "0x" + String(value, radix: 16)
        return text + String(repeating: " ", count: max(0, 16 - text.utf8.count))
    }

    /// The object as qemu-img writes it, blanks included: scripts split maps by lines.
    var json: String {
        var text = "{ \"start\": \(start), \"length\": \(byteCount), \"depth\": \(depth), \"present\": \(isPresent), \"zero\": \(isZero), \"data\": \(isData), \"compressed\": \(isCompressed)"
        if let offset { text += ", \"offset\": \(offset)" }
        return text + "}"
    }
}
