import BlockGraph
import IOCore
import StrataBase
import Synchronization

/// What keeps a mapping from being looked up at once.
enum MappingObstacle: Error {
    /// This page of the file has to be read first.
    case page(Int)
    case damage(BlockError)
}

/// The tables of one image, a page at a time: what was looked at last stays in memory, 4 MiB of it at most, however large an image says that
/// its tables are.
///
/// Any thread. The file does not change: images of these formats are only read.
final class MetadataCache: Sendable {
    /// Bytes; a multiple of every entry's size.
    static let pageSize = 16 << 10
    private static let capacity = 256

    private let file: BlockChild

    private struct Slot {
        var page: Int
        var buffer: IOBuffer
        var isRecent: Bool
    }

    private struct State {
        var slots: [Slot] = []
        var index: [Int: Int] = [:]
        /// Where the search for a page to give up goes on.
        var hand = 0
    }

    private let state = Mutex(State())

    init(_ file: BlockChild) { self.file = file }

    /// The little-endian number at `offset`, a multiple of its size.
    func littleEndian<I: FixedWidthInteger & BitwiseCopyable & Sendable>(at offset: Int, as _: I.Type = I.self) throws(MappingObstacle) -> I {
        try number(at: offset) { $0.checkedLittleEndian(at: $1) }
    }

    /// The big-endian number at `offset`, a multiple of its size.
    func bigEndian<I: FixedWidthInteger & BitwiseCopyable & Sendable>(at offset: Int, as _: I.Type = I.self) throws(MappingObstacle) -> I {
        try number(at: offset) { $0.checkedBigEndian(at: $1) }
    }

    private func number<I: FixedWidthInteger & Sendable>(at offset: Int, _ decode: (RawSpan, Int) -> I) throws(MappingObstacle) -> I {
        precondition(offset >= 0 && offset.isMultiple(of: MemoryLayout<I>.size), "an entry of a table lies at a multiple of its size")
        let page = offset / Self.pageSize
        let found = state.withLock { state -> I? in
            guard let slot = state.index[page] else { return nil }
            state.slots[slot].isRecent = true
            return state.slots[slot].buffer.withBytes { decode($0, offset % Self.pageSize) }
        }
        guard let found else { throw .page(page) }
        return found
    }

    /// Brings a page in.
    func load(_ page: Int) async throws(BlockError) {
        let buffer = IOBuffer(byteCount: Self.pageSize)
        defer { withExtendedLifetime(buffer) {} }
        // What lies beyond the end of the file reads as zeroes.
        try await file.read(buffer.vector, at: GuestOffset(page * Self.pageSize))
        insert(buffer, page)
    }

    /// Brings a page in without waiting; false when that is not possible.
    func tryLoad(_ page: Int) -> Bool {
        let start = page * Self.pageSize
        let inside = min(Self.pageSize, file.length - start)
        guard inside > 0 else { return false }
        let buffer = IOBuffer(byteCount: Self.pageSize)
        defer { withExtendedLifetime(buffer) {} }
        guard file.tryRead(buffer.vector(at: 0, byteCount: inside), at: GuestOffset(start)) else { return false }
        if inside < Self.pageSize { buffer.vector(at: inside, byteCount: Self.pageSize - inside).zero() }
        insert(buffer, page)
        return true
    }

    private func insert(_ buffer: IOBuffer, _ page: Int) {
        let slot = Slot(page: page, buffer: buffer, isRecent: true)
        state.withLock { state in
            // Two may have read the same page.
            if state.index[page] != nil { return }
            if state.slots.count < Self.capacity {
                state.index[page] = state.slots.count
                state.slots.append(slot)
                return
            }
            while state.slots[state.hand].isRecent {
                state.slots[state.hand].isRecent = false
                state.hand = (state.hand + 1) % Self.capacity
            }
            state.index[state.slots[state.hand].page] = nil
            state.index[page] = state.hand
            state.slots[state.hand] = slot
            state.hand = (state.hand + 1) % Self.capacity
        }
    }
}
