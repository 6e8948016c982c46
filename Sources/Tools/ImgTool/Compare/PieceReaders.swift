import IOCore
import StrataBase
import Synchronization
import ToolSupport

/// Reads pieces of two images with several workers, and looks whether they are the same.
struct PieceReaders: Sendable {
    struct Piece: Sendable {
        let range: Range<Int>
        /// Both images, or the one whose bytes have to be zero.
        let sources: [Int]
    }

    private let images: [PaddedImage]
    private let names: [String]
    private let workers: [Worker]

    private struct Worker: Sendable {
        let context: IOContext
        /// Grow to the size that is needed.
        let buffers = [BufferSlot(), BufferSlot()]
    }

    /// A worker's own: nobody else uses it.
    private final class BufferSlot: Sendable {
        private let buffer = Mutex<IOBuffer?>(nil)
        func buffer(_ byteCount: Int) -> IOBuffer {
            buffer.withLock { buffer in
                if let buffer, buffer.byteCount >= byteCount { return buffer }
                let larger = IOBuffer(byteCount: byteCount)
                buffer = larger
                return larger
            }
        }
    }

    init(_ images: [PaddedImage], names: [String], count: Int, on contexts: [IOContext]) {
        self.images = images
        self.names = names
        workers = (0..<count).map { Worker(context: contexts[$0 % contexts.count]) }
    }

    /// Reads all pieces and empties the batch.
    /// - Throws: the finding of the first piece that has one.
    func run(_ batch: inout [Piece]) async throws(Comparison.Finding) {
        let pieces = batch
        batch = []
        if pieces.isEmpty { return }
        let agenda = Agenda(count: pieces.count)
        await withTaskGroup(of: Void.self) { group in
            for worker in workers.prefix(pieces.count) {
                group.addTask(executorPreference: worker.context) {
                    while let index = agenda.take() {
                        do throws(Comparison.Finding) {
                            try await compare(pieces[index], worker)
                        } catch {
                            agenda.note(error, of: index)
                        }
                        // A worker whose requests are all answered at once would keep its thread for itself.
                        await Task.yield()
                    }
                }
            }
        }
        if let finding = agenda.finding { throw finding }
    }

    /// Hands out the pieces of one batch in order. Those behind one with a finding do not matter any more.
    private final class Agenda: Sendable {
        private struct State {
            var next = 0
            var end: Int
            var finding: Comparison.Finding?
        }
        private let state: Mutex<State>

        init(count: Int) { state = Mutex(State(end: count)) }

        func take() -> Int? {
            state.withLock { state in
                guard state.next < state.end else { return nil }
                state.next += 1
                return state.next - 1
            }
        }

        func note(_ finding: Comparison.Finding, of index: Int) {
            state.withLock { if index < $0.end { ($0.end, $0.finding) = (index, finding) } }
        }

        var finding: Comparison.Finding? { state.withLock { $0.finding } }
    }

    private func compare(_ piece: Piece, _ worker: Worker) async throws(Comparison.Finding) {
        let buffers = worker.buffers.map { $0.buffer(piece.range.count) }
        defer { withExtendedLifetime(buffers) {} }
        let views = buffers.map { $0.vector(at: 0, byteCount: piece.range.count) }
        for source in piece.sources {
            do throws(BlockError) {
                try await images[source].read(views[source], at: piece.range.lowerBound)
            } catch {
                throw .failure(ToolFailure("Error while reading offset \(piece.range.lowerBound) of \(names[source])", error, status: 4))
            }
        }
        let difference: Int?
        if piece.sources.count == 2 {
            difference = views[0].firstDifference(from: views[1])
        } else {
            let view = views[piece.sources[0]]
            difference = view.isZero ? nil : Self.firstSector(of: view) { !$0.isZero }
        }
        if let difference { throw .difference(at: piece.range.lowerBound + difference / ConvertSource.sectorSize * ConvertSource.sectorSize) }
    }

    private static func firstSector(of view: IOVector, where predicate: (IOVector) -> Bool) -> Int? {
        for start in stride(from: 0, to: view.byteCount, by: ConvertSource.sectorSize) {
            if predicate(view.slice(at: start, byteCount: min(ConvertSource.sectorSize, view.byteCount - start))) { return start }
        }
        return nil
    }
}
