package import BlockGraph
import StrataBase
import StrataTesting

extension OverlapHistory {
    /// Random requests, one after the other; several tasks that do so make requests that overlap.
    package func exercise(_ backend: BlockBackend, seed: UInt64, rounds: Int) async throws {
        var random = SeededGenerator(seed: seed)
        let cells = backend.length / Self.cell
        for _ in 0..<rounds {
            let first = Int.random(in: 0..<cells, using: &random)
            let count = min(cells - first, [1, 3, 16, 128, 200].randomElement(using: &random) ?? 1)
            let range = first..<first + count
            let guestRange = GuestRange(GuestOffset(first * Self.cell), byteCount: count * Self.cell)
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<5:
                let number = beginWrite(range)
                try await backend.writeArray(Self.bytes(number, cells: count), at: guestRange.start.rawValue)
                endWrite(number)
            case 5:
                let index = beginZeroes(range)
                try await backend.writeZeroes(guestRange, flags: Bool.random(using: &random) ? .mayUnmap : [])
                endZeroes(index)
            case 6: try await backend.flush()
            default:
                let begun = beginRead()
                let bytes = try await backend.readArray(at: guestRange.start.rawValue, guestRange.byteCount)
                endRead(range, begun: begun, found: Self.numbers(bytes))
            }
        }
    }

    /// Reads the whole disk as one more request.
    package func readAll(_ backend: BlockBackend) async throws {
        let cells = backend.length / Self.cell
        let begun = beginRead()
        let bytes = try await backend.readArray(at: 0, cells * Self.cell)
        endRead(0..<cells, begun: begun, found: Self.numbers(bytes))
    }
}
