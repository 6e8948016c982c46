import BlockEncryption
import StrataBase
import StrataTesting
import Synchronization

/// A LUKS header in memory. It remembers every write and flush, and can fail at one of them.
final class JournalledArea: KeyArea {
    enum Step: Sendable {
        case write(offset: Int, bytes: [UInt8])
        case flush
    }

    private struct State: Sendable {
        var bytes: [UInt8]
        var journal: [Step] = []
        var calls = 0
        var failing: Int?
        var appliesFailedWrite = false
    }

    private let state: Mutex<State>

    init(_ bytes: [UInt8]) { state = Mutex(State(bytes: bytes)) }

    var bytes: [UInt8] { state.withLock { $0.bytes } }
    var journal: [Step] { state.withLock { $0.journal } }
    /// Writes and flushes so far.
    var calls: Int { state.withLock { $0.calls } }

    /// The write or flush after `calls` more fails, once; a write may have reached the disk all the same.
    func failCall(_ calls: Int, applies: Bool) {
        state.withLock {
            $0.failing = $0.calls + calls
            $0.appliesFailedWrite = applies
        }
    }

    func read(at offset: Int, byteCount: Int) async throws(BlockError) -> [UInt8] {
        state.withLock { state in
            (offset..<offset + byteCount).map { $0 < state.bytes.count ? state.bytes[$0] : 0 }
        }
    }

    func write(_ bytes: [UInt8], at offset: Int) async throws(BlockError) {
        let fails = state.withLock { state in
            let fails = state.failing == state.calls
            state.calls += 1
            if !fails || state.appliesFailedWrite {
                state.bytes.replaceSubrange(offset..<offset + bytes.count, with: bytes)
                state.journal.append(.write(offset: offset, bytes: bytes))
            }
            return fails
        }
        if fails { throw BlockError(.io, "a write failed as planned") }
    }

    func flush() async throws(BlockError) {
        let fails = state.withLock { state in
            let fails = state.failing == state.calls
            state.calls += 1
            if !fails { state.journal.append(.flush) }
            return fails
        }
        if fails { throw BlockError(.io, "a flush failed as planned") }
    }

    /// What a crash during `journal` may leave of `old`: everything before a flush, and of the writes after it any one sector more or less. Sectors of 512
    /// bytes are written wholly or not at all. Writes of many sectors are torn at a few places.
    static func crashStates(of old: [UInt8], _ journal: [Step], seed: UInt64) -> [[UInt8]] {
        var random = SeededGenerator(seed: seed)
        var states = [old]
        var stable = old
        var pending: [(offset: Int, bytes: [UInt8])] = []
        func add() {
            var sectors: [(offset: Int, bytes: [UInt8])] = []
            for (offset, bytes) in pending {
                var position = 0
                while position < bytes.count {
                    let end = min(bytes.count, (offset + position) / 512 * 512 + 512 - offset)
                    sectors.append((offset + position, Array(bytes[position..<end])))
                    position = end
                }
            }
            for _ in 0..<6 {
                var image = stable
                for sector in sectors where random.next() & 1 == 0 { image.replaceSubrange(sector.offset..<sector.offset + sector.bytes.count, with: sector.bytes) }
                states.append(image)
            }
        }
        for step in journal {
            switch step {
            case .write(let offset, let bytes):
                pending.append((offset, bytes))
                add()
            case .flush:
                for (offset, bytes) in pending { stable.replaceSubrange(offset..<offset + bytes.count, with: bytes) }
                pending = []
                states.append(stable)
            }
        }
        return states
    }
}
