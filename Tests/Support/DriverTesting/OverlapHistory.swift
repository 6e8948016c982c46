import Synchronization

/// What concurrent requests wrote and read on one disk, judged afterwards.
///
/// The disk is cut into cells. A write fills whole cells with a number of its own, a read notes the numbers it finds. Requests that overlap in time
/// may take effect in any order, cell by cell; those that do not keep theirs: a read must not find what was wholly overwritten before it began,
/// nor what was written only after it was over.
package final class OverlapHistory: Sendable {
    package static let cell = 32

    private struct Event: Sendable {
        var cells: Range<Int>
        var begin: Int
        var end = Int.max
    }

    private struct State: Sendable {
        var clock = 0
        /// By number; 0 is the disk as it was: zeroes.
        var writes: [UInt32: Event] = [:]
        /// Writes of zeroes all have number 0 in the cells.
        var zeroes: [Event] = []
        var nextNumber: UInt32 = 1
        var problems: [String] = []

        mutating func tick() -> Int {
            clock += 1
            return clock
        }
    }

    private let state: Mutex<State>
    private let cellCount: Int

    package init(byteCount: Int) {
        cellCount = byteCount / Self.cell
        state = Mutex(State(zeroes: [Event(cells: 0..<byteCount / Self.cell, begin: 0, end: 0)]))
    }

    package var problems: [String] { state.withLock { $0.problems } }

    /// Begins a write, and gives its number.
    package func beginWrite(_ cells: Range<Int>) -> UInt32 {
        state.withLock { state in
            let number = state.nextNumber
            state.nextNumber += 1
            state.writes[number] = Event(cells: cells, begin: state.tick())
            return number
        }
    }

    package func endWrite(_ number: UInt32) {
        state.withLock { state in
            let now = state.tick()
            state.writes[number]?.end = now
        }
    }

    package func beginZeroes(_ cells: Range<Int>) -> Int {
        state.withLock { state in
            state.zeroes.append(Event(cells: cells, begin: state.tick()))
            return state.zeroes.count - 1
        }
    }

    package func endZeroes(_ index: Int) {
        state.withLock { state in
            let now = state.tick()
            state.zeroes[index].end = now
        }
    }

    package func beginRead() -> Int { state.withLock { $0.tick() } }

    /// - Parameter numbers: what the read has found, one for each of `cells`.
    package func endRead(_ cells: Range<Int>, begun: Int, found numbers: [UInt32]) {
        state.withLock { state in
            let end = state.tick()
            for (cell, number) in zip(cells, numbers) {
                let candidates = number == 0 ? state.zeroes.filter { $0.cells.contains(cell) } : [state.writes[number]].compactMap { $0 }.filter { $0.cells.contains(cell) }
                // Found is plausible if it was begun before the read was over, and nothing came wholly between it and the read.
                let isPlausible = candidates.contains { candidate in
                    if candidate.begin > end { return false }
                    func isBetween(_ other: Event) -> Bool { other.cells.contains(cell) && other.begin > candidate.end && other.end < begun }
                    return !state.writes.values.contains(where: isBetween) && !state.zeroes.contains(where: isBetween)
                }
                if !isPlausible, state.problems.count < 10 {
                    state.problems.append("cell \(cell) read at \(begun)...\(end) has number \(number), which cannot be there then (\(candidates))")
                }
            }
        }
    }

    /// The bytes of a write.
    package static func bytes(_ number: UInt32, cells: Int) -> [UInt8] {
        let pattern = (0..<4).map { UInt8(truncatingIfNeeded: number >> (8 * UInt32($0))) }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(cells * cell)
        for _ in 0..<cells * cell / 4 { bytes += pattern }
        return bytes
    }

    /// The numbers at the beginning of each cell.
    package static func numbers(_ bytes: [UInt8]) -> [UInt32] {
        var numbers: [UInt32] = []
        for start in stride(from: 0, to: bytes.count, by: cell) {
            var number: UInt32 = 0
            for index in 0..<4 { number |= UInt32(bytes[start + index]) << UInt32(8 * index) }
            numbers.append(number)
        }
        return numbers
    }
}
