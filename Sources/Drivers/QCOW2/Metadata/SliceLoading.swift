import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import Synchronization

// Reading slices of the mapping. Several are read at once; two requests for one slice share the read.

extension QCOW2Driver {
    private var sliceBytes: Int { options.l2SliceBytes }

    private enum Start {
        case read(slot: Int, HostOffset, InFlightIO.Ticket)
        case nothingToDo
        case wait
        case full
    }

    private func begin(_ slice: Int) throws(Obstacle) -> Start {
        try state.withLock { state throws(Obstacle) in
            guard let offset = try state.hostOffset(ofSlice: slice) else { return .nothingToDo }
            switch state.l2.beginLoad(of: slice) {
            // The ticket keeps the table's cluster from being reused if the table moves meanwhile.
            case .read(let slot): return .read(slot: slot, offset, inFlight.enter(epoch: state.epoch))
            case .present: return .nothingToDo
            case .underWay: return .wait
            case .noCleanSlot: return .full
            }
        }
    }

    private func finish(_ slot: Int, _ buffer: IOBuffer?, _ ticket: InFlightIO.Ticket) {
        let waiters = state.withLock { state in
            if let buffer {
                buffer.withBytes { state.l2.finishLoad(slot, $0) }
            } else {
                state.l2.abandonLoad(slot)
            }
            let waiters = state.loadWaiters
            state.loadWaiters = []
            return waiters
        }
        inFlight.leave(ticket)
        for waiter in waiters { waiter.resume() }
    }

    /// Makes a slice present, unless its L1 entry names no table.
    func loadSlice(_ slice: Int) async throws(BlockError) {
        let start: Start
        do throws(Obstacle) { start = try begin(slice) } catch {
            // Only an invalid L1 entry stops a load from beginning.
            guard case .corrupt(let contradiction) = error else { return }
            throw await signalCorruption(contradiction)
        }
        switch start {
        case .nothingToDo: return
        case .full: try await commit(.mapping)
        case .wait:
            await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
                let waits = state.withLock { state in
                    guard state.l2.isLoading(slice) else { return false }
                    state.loadWaiters.append(continuation)
                    return true
                }
                if !waits { continuation.resume() }
            }
        case .read(let slot, let offset, let ticket):
            Trace.qcow2L2Read(file: file.node.name, slice: slice, host: offset.rawValue)
            let buffer = IOBuffer(byteCount: sliceBytes)
            file.reached(.l2Load)
            do {
                try await file.read(buffer.vector, at: offset.asGuest)
            } catch {
                finish(slot, nil, ticket)
                throw error.during("reading the L2 table at \(offset)")
            }
            finish(slot, buffer, ticket)
        }
    }

    /// The same without waiting.
    /// - Returns: whether the slice may be present now.
    func tryLoadSlice(_ slice: Int) -> Bool {
        guard let start = try? begin(slice) else { return false }
        guard case .read(let slot, let offset, let ticket) = start else {
            if case .nothingToDo = start { return true }
            return false
        }
        Trace.qcow2L2Read(file: file.node.name, slice: slice, host: offset.rawValue)
        let buffer = IOBuffer(byteCount: sliceBytes)
        let isRead = file.tryRead(buffer.vector, at: offset.asGuest)
        finish(slot, isRead ? buffer : nil, ticket)
        return isRead
    }
}
