import BlockCopy
import BlockGraph
import IOCore
import StrataBase

/// The images that are read, one behind the other, as one disk.
struct ConvertSource: CopySource {
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

    /// What an image does not store itself stays with its backing file, which the target has too.
    var leavesBacking = false
    /// What to do about sectors that cannot be read; nil fails.
    var salvage: Salvage?

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

    /// Runs shorter than this are looked up together, in bytes: all workers wait for whoever looks one up, and a compressed or fragmented image
    /// has a run for every cluster.
    private static let sharedLookUp = 4 << 20

    /// What lies at `position`, and how far it is the same.
    func run(at position: Int, limit: Int) async throws(BlockError) -> CopyRun {
        var run = try await shortRun(at: position, limit: limit)
        // A run stays inside one image, because what is read together does.
        let image = part(at: position)
        let end = min(limit, position + Self.sharedLookUp, image.start + image.paddedLength)
        // What cannot be looked up is met again when its turn comes, and noted once.
        while salvage == nil, run.range.upperBound < end {
            let next: CopyRun
            do throws(BlockError) { next = try await shortRun(at: run.range.upperBound, limit: limit) } catch { break }
            if next.kind != run.kind { break }
            run.range = run.range.lowerBound..<next.range.upperBound
        }
        return run
    }

    private func shortRun(at position: Int, limit: Int) async throws(BlockError) -> CopyRun {
        let part = part(at: position)
        let end = part.start + part.length
        guard position < end else { return CopyRun(.zero, position..<part.start + part.paddedLength) }
        let range = GuestRange(GuestOffset(position - part.start), byteCount: min(end, limit) - position)
        let (status, depth): (BlockStatus, Int)
        do throws(BlockError) {
            (status, depth, _) = try await part.backend.node.chainStatus(of: range)
        } catch {
            guard let salvage else { throw error }
            salvage.noteStatus(error, at: position)
            return CopyRun(.data, position..<min(end, limit, position + Self.sectorSize))
        }
        let kind: CopyRun.Kind = leavesBacking && depth > 0 ? .nothing : status.flags.contains(.zero) ? .zero : .data
        return CopyRun(kind, position..<position + status.byteCount)
    }

    /// The data of one image: what is read together never goes beyond a run.
    func tryRead(_ data: IOVector, at position: Int) -> Bool {
        let part = part(at: position)
        return part.backend.root.tryRead(data, at: GuestOffset(position - part.start))
    }

    func read(_ data: IOVector, at position: Int) async throws(BlockError) {
        let part = part(at: position)
        do throws(BlockError) {
            try await part.backend.root.read(data, at: GuestOffset(position - part.start))
        } catch {
            guard let salvage else { throw error }
            await salvage.read(data, at: position) { (sector, position) async throws(BlockError) in
                try await part.backend.root.read(sector, at: GuestOffset(position - part.start))
            }
        }
    }

    func copyRange(_ range: Range<Int>, to target: BlockChild, flags: RequestFlags) async throws(BlockError) -> Support {
        let part = part(at: range.lowerBound)
        let inside = GuestRange(GuestOffset(range.lowerBound - part.start), byteCount: range.count)
        return try await part.backend.root.copyRange(inside, to: target, at: GuestOffset(range.lowerBound), flags: flags)
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
