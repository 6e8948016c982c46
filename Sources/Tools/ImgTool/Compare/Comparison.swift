import BlockCopy
import BlockGraph
import IOCore
import StrataBase
import ToolSupport

/// Compares two images and finds the first difference.
///
/// What is stored where is looked up front to back; what has to be read for that is read a batch of pieces at a time, by several workers. The
/// finding that lies first in the disk counts, whichever was made first.
struct Comparison: Sendable {
    private let images: [PaddedImage]
    private let names: [String]
    private let isStrict: Bool
    private let progress: ProgressReporter

    init(_ images: [PaddedImage], names: [String], isStrict: Bool, _ progress: ProgressReporter) {
        precondition(images.count == 2 && names.count == 2, "two images are compared")
        self.images = images
        self.names = names
        self.isStrict = isStrict
        self.progress = progress
    }

    /// How a comparison ends.
    struct Verdict: Sendable {
        var text: String
        var status: Int32
        /// What kept the comparison from coming to an end.
        var failure: ToolFailure?
    }

    /// What is not the same, or cannot be found out.
    enum Finding: Error, Sendable {
        case difference(at: Int)
        case status(at: Int)
        case failure(ToolFailure)
    }

    /// Bytes that one request reads.
    private static let pieceSize = 512 << 10
    /// Pieces that are read together.
    private static let batchSize = 32
    private static let workers = 8

    private var longest: Int { max(images[0].length, images[1].length) }

    func run(on context: IOContext) async -> Verdict {
        let sizesDiffer = images[0].length != images[1].length
        if sizesDiffer, isStrict { return Verdict(text: "Strict mode: Image size mismatch!\n", status: 1) }
        let threads = CopyThreads(context, for: longest)
        defer { threads.stop() }
        let readers = PieceReaders(images, names: names, count: Self.workers, on: threads.contexts)
        var warning = ""
        do throws(Finding) {
            try await compareCommonPart(readers)
            if sizesDiffer {
                warning = "Warning: Image size mismatch!\n"
                try await checkRest(readers)
            }
            return Verdict(text: warning + "Images are identical.\n", status: 0)
        } catch {
            switch error {
            case .difference(let position): return Verdict(text: warning + "Content mismatch at offset \(position)!\n", status: 1)
            case .status(let position): return Verdict(text: "Strict mode: Offset \(position) block status mismatch!\n", status: 1)
            case .failure(let failure): return Verdict(text: warning, status: failure.status, failure: failure)
            }
        }
    }

    private func compareCommonPart(_ readers: PieceReaders) async throws(Finding) {
        let end = min(images[0].length, images[1].length)
        var position = 0
        var known: [(extent: PaddedImage.Extent, end: Int)] = []
        var batch: [PieceReaders.Piece] = []
        func lookUp() async throws(Finding) {
            for index in 0..<2 {
                if known.count == 2, known[index].end > position { continue }
                let extent = try await extent(of: index, at: position, limit: end - position)
                if known.count == 2 { known[index] = (extent, position + extent.byteCount) } else { known.append((extent, position + extent.byteCount)) }
            }
            if isStrict, known[0].extent.kind != known[1].extent.kind { throw .status(at: position) }
        }
        while position < end {
            do throws(Finding) { try await lookUp() } catch {
                // What lies before counts first.
                try await readers.run(&batch)
                throw error
            }
            let isZero = known.map(\.extent.isZero)
            let stop = min(known[0].end, known[1].end)
            while position < stop {
                if isZero[0] && isZero[1] {
                    position = stop
                    break
                }
                // Pieces begin at multiples of their size again after the first of a stretch.
                let next = min(stop, (position + 1).roundedUp(to: Self.pieceSize))
                batch.append(.init(range: position..<next, sources: isZero[0] ? [1] : isZero[1] ? [0] : [0, 1]))
                position = next
                if batch.count == Self.batchSize { try await readers.run(&batch) }
            }
            if batch.isEmpty { progress.report(position, of: longest) }
        }
        try await readers.run(&batch)
        progress.report(position, of: longest)
    }

    /// What the longer image has beyond the end of the shorter one has to be zero.
    private func checkRest(_ readers: PieceReaders) async throws(Finding) {
        let index = images[0].length > images[1].length ? 0 : 1
        var position = images[1 - index].length
        var batch: [PieceReaders.Piece] = []
        while position < images[index].length {
            let extent: PaddedImage.Extent
            do throws(Finding) { extent = try await self.extent(of: index, at: position, limit: images[index].length - position) } catch {
                try await readers.run(&batch)
                throw error
            }
            let stop = position + extent.byteCount
            while !extent.isZero, position < stop {
                let next = min(stop, (position + 1).roundedUp(to: Self.pieceSize))
                batch.append(.init(range: position..<next, sources: [index]))
                position = next
                if batch.count == Self.batchSize { try await readers.run(&batch) }
            }
            position = stop
            progress.report(position, of: longest)
        }
        try await readers.run(&batch)
    }

    private func extent(of index: Int, at position: Int, limit: Int) async throws(Finding) -> PaddedImage.Extent {
        do throws(BlockError) {
            return try await images[index].extent(at: position, limit: limit)
        } catch {
            throw .failure(ToolFailure("Sector allocation test failed", error, status: 3))
        }
    }
}

extension PaddedImage.Extent {
    /// What `compare -s` compares: not where, but how the bytes are stored.
    /// Zeroes beyond the end of a backing file count as if they were stored, as in QEMU.
    fileprivate var kind: BlockStatus.Flags {
        flags.union(isBeyondBacking ? .allocated : []).intersection([.data, .zero, .allocated, .offsetValid, .compressed, .endOfFile])
    }
}
