import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import Synchronization

// Reading slices of the mapping. Several are read at once; two requests for one slice share the read. Who goes through the disk from front to back
// has the rest of a table read with its next slice.

extension QCOW2Driver {
    private var sliceBytes: Int { options.l2SliceBytes }

    /// A load that has begun: `count` slices from `slice` on, which follow each other on disk.
    private struct Load {
        var slice: Int
        var count: Int
        var offset: HostOffset
        /// Keeps the table's cluster from being reused if the table moves meanwhile.
        var ticket: InFlightIO.Ticket
    }

    private enum Start {
        case read(Load)
        case nothingToDo
        case wait
        case full
    }

    private func begin(_ slice: Int, readsAhead: Bool, isPassing: Bool = false) throws(Obstacle) -> Start {
        try state.withLock { state throws(Obstacle) in
            guard let offset = try state.hostOffset(ofSlice: slice) else { return .nothingToDo }
            switch state.l2.beginLoad(of: slice, isPassing: isPassing) {
            case .read:
                let ahead = readsAhead ? state.l2.beginReadingAhead(of: slice, through: state.lastSlice(inTableOf: slice), isPassing: isPassing) : 0
                return .read(Load(slice: slice, count: 1 + ahead, offset: offset, ticket: inFlight.enter(epoch: state.epoch)))
            case .present: return .nothingToDo
            case .underWay: return .wait
            case .noCleanSlot: return .full
            }
        }
    }

    private func finish(_ load: Load, _ buffer: IOBuffer?) {
        let waiters = state.withLock { state in
            for number in 0..<load.count {
                guard let slot = state.l2.loadingSlot(of: load.slice + number) else { preconditionFailure("a slice keeps its slot while it is read") }
                if let buffer {
                    buffer.withBytes { bytes in state.l2.finishLoad(slot, bytes.extracting(number * sliceBytes..<(number + 1) * sliceBytes)) }
                } else {
                    state.l2.abandonLoad(slot)
                }
            }
            let waiters = state.loadWaiters
            state.loadWaiters = []
            return waiters
        }
        inFlight.leave(load.ticket)
        for waiter in waiters { waiter.resume() }
    }

    /// Makes a slice present, unless its L1 entry names no table.
    func loadSlice(_ slice: Int, readsAhead: Bool = true) async throws(BlockError) {
        let start: Start
        do throws(Obstacle) { start = try begin(slice, readsAhead: readsAhead) } catch {
            // Only an invalid L1 entry stops a load from beginning.
            guard case .corrupt(let contradiction) = error else { return }
            throw await signalCorruption(contradiction)
        }
        switch start {
        case .nothingToDo: return
        case .full:
            if state.withLock({ $0.l2.dirtyCount > 0 }) { return try await commit(.mapping) }
            // All that there is room for is being read.
            await waitForLoad { $0.isLoadingAny }
        case .wait: await waitForLoad { $0.isLoading(slice) }
        case .read(let load):
            Trace.qcow2L2Read(file: file.node.name, slice: slice, host: load.offset.rawValue)
            let buffer = IOBuffer(byteCount: load.count * sliceBytes)
            file.reached(.l2Load)
            do {
                try await file.read(buffer.vector, at: load.offset.asGuest)
            } catch {
                finish(load, nil)
                // What lies behind the slice may be what cannot be read.
                if load.count > 1 { return try await loadSlice(slice, readsAhead: false) }
                throw error.during("reading the L2 table at \(load.offset)")
            }
            finish(load, buffer)
        }
    }

    /// Waits until a slice has been read, if one is being read that matters.
    private func waitForLoad(_ matters: @Sendable (borrowing L2SliceCache) -> Bool) async {
        await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
            let waits = state.withLock { state in
                guard matters(state.l2) else { return false }
                state.loadWaiters.append(continuation)
                return true
            }
            if !waits { continuation.resume() }
        }
    }

    /// The same without waiting.
    /// - Parameter isPassing: see `L2SliceCache.beginLoad`.
    /// - Returns: whether the slice may be present now.
    func tryLoadSlice(_ slice: Int, isPassing: Bool = false) -> Bool {
        guard let start = try? begin(slice, readsAhead: true, isPassing: isPassing) else { return false }
        guard case .read(let load) = start else {
            if case .nothingToDo = start { return true }
            return false
        }
        Trace.qcow2L2Read(file: file.node.name, slice: slice, host: load.offset.rawValue)
        let buffer = IOBuffer(byteCount: load.count * sliceBytes)
        let isRead = file.tryRead(buffer.vector, at: load.offset.asGuest)
        finish(load, isRead ? buffer : nil)
        return isRead
    }
}
