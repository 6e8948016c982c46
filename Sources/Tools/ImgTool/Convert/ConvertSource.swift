import BlockGraph
import StrataBase

/// The images that are read, one behind the other, as one disk.
struct ConvertSource: Sendable {
    struct Part: Sendable {
        let backend: BlockBackend
        /// Where the image begins in the target, in bytes.
        let start: Int
        /// The image's own size in bytes.
        let length: Int
        /// What it takes in the target: whole sectors, the rest of the last one zero.
        var paddedLength: Int { length.roundedUp(to: ConvertSource.sectorSize) }
    }

    /// Bytes. Images are laid out in whole sectors.
    static let sectorSize = 512

    let parts: [Part]
    /// Bytes in all.
    let length: Int

    /// - Throws: when the sizes add up to more than a disk can have.
    init(_ backends: [BlockBackend]) throws(BlockError) {
        var parts: [Part] = []
        var position = 0
        for backend in backends {
            let length = backend.length
            guard length <= Int.max - Self.sectorSize - position else { throw BlockError(.tooLarge, "the sources together are too large") }
            let part = Part(backend: backend, start: position, length: length)
            parts.append(part)
            position += part.paddedLength
        }
        self.parts = parts
        length = position
    }

    /// What a reader finds there.
    enum Kind: Sendable, Hashable {
        case data
        case zero
        /// The image itself has nothing: its backing file shows through.
        case backing
    }

    /// A stretch that is the same throughout.
    struct Run: Sendable {
        let part: Part
        let kind: Kind
        let range: Range<Int>
    }

    /// What lies at `position`, and how far it is the same.
    /// - Parameter keepsBacking: whether what shows through from a backing file is told from data.
    func run(at position: Int, keepsBacking: Bool) async throws(BlockError) -> Run {
        let part = part(at: position)
        let end = part.start + part.length
        guard position < end else { return Run(part: part, kind: .zero, range: position..<part.start + part.paddedLength) }
        let range = GuestRange(GuestOffset(position - part.start), byteCount: end - position)
        let (status, depth, _) = try await part.backend.blockStatus(of: range)
        let kind: Kind = keepsBacking && depth > 0 ? .backing : status.flags.contains(.zero) ? .zero : .data
        return Run(part: part, kind: kind, range: position..<position + status.byteCount)
    }

    private func part(at position: Int) -> Part {
        var low = 0
        var high = parts.count - 1
        while low < high {
            let middle = (low + high + 1) / 2
            if parts[middle].start <= position { low = middle } else { high = middle - 1 }
        }
        precondition(low < parts.count, "positions lie inside the source")
        return parts[low]
    }
}
