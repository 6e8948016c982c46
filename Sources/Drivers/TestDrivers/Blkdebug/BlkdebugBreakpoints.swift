import BlockGraph
import IOCore
package import StorageSchema
package import StrataBase
import Synchronization

/// The breakpoints of one blkdebug node, and the requests that they hold up.
///
/// A point is reported by the task of the request that passes it, synchronously; the request is held up a moment later, when the same task brings it
/// to the node.
final class BlkdebugBreakpoints: Sendable {
    private struct State: Sendable {
        var armed: [(point: BlkdebugEvent, tag: String)] = []
        /// Tasks that have met a breakpoint and not come to the node yet.
        var met: [(task: Int, tag: String)] = []
        var suspended: [(number: Int, tag: String)] = []
        var nextNumber = 0
    }

    private let state = AsyncCondition(State())
    /// Nodes without breakpoints pay a load for them.
    private let isInUse = Atomic<Bool>(false)

    func set(at point: BlkdebugEvent, tag: String) {
        isInUse.store(true, ordering: .relaxed)
        state.update { $0.armed.append((point, tag)) }
    }

    func remove(tag: String) -> Bool {
        state.update { state in
            let before = state.armed.count + state.met.count + state.suspended.count
            state.armed.removeAll { $0.tag == tag }
            state.met.removeAll { $0.tag == tag }
            state.suspended.removeAll { $0.tag == tag }
            return state.armed.count + state.met.count + state.suspended.count < before
        }
    }

    func resume(tag: String) throws(BlockError) {
        let isFound = state.update { state in
            guard let index = state.suspended.firstIndex(where: { $0.tag == tag }) else { return false }
            state.suspended.remove(at: index)
            return true
        }
        if isFound { StandardStreams.print("blkdebug: Resuming request '\(tag)'\n") }
        if !isFound { throw BlockError(.notFound, "No request is suspended under the tag '\(tag)'") }
    }

    func isSuspended(tag: String) -> Bool { state.withLock { $0.suspended.contains { $0.tag == tag } } }

    func waitUntilSuspended(tag: String) async {
        _ = await state.wait { $0.suspended.contains { $0.tag == tag } ? true : nil }
    }

    /// A request of the calling task has got to `point`.
    func reach(_ point: BlkdebugEvent) {
        guard isInUse.load(ordering: .relaxed), let task = TaskIdentity.current else { return }
        state.withLock { state in
            guard let index = state.armed.firstIndex(where: { $0.point == point }) else { return }
            state.met.append((task, state.armed.remove(at: index).tag))
        }
    }

    /// Holds the request up if it has met a breakpoint.
    func pause() async {
        guard isInUse.load(ordering: .relaxed), let task = TaskIdentity.current else { return }
        // Told before others can know, as QEMU does: scripts compare what is printed, in its order.
        guard let tag = state.withLock({ state in state.met.first { $0.task == task }?.tag }) else { return }
        StandardStreams.print("blkdebug: Suspended request '\(tag)'\n")
        let number: Int? = state.update { state in
            guard let index = state.met.firstIndex(where: { $0.task == task }) else { return nil }
            state.nextNumber += 1
            state.suspended.append((state.nextNumber, state.met.remove(at: index).tag))
            return state.nextNumber
        }
        guard let number else { return }
        _ = await state.wait { $0.suspended.contains { $0.number == number } ? nil : true }
    }
}

extension BlkdebugDriver: RequestSuspending {
    package func setBreakpoint(at point: BlkdebugEvent, tag: String) { breakpoints.set(at: point, tag: tag) }
    package func removeBreakpoint(tag: String) -> Bool { breakpoints.remove(tag: tag) }
    package func resumeRequest(tag: String) throws(BlockError) { try breakpoints.resume(tag: tag) }
    package func isSuspended(tag: String) -> Bool { breakpoints.isSuspended(tag: tag) }
    package func waitUntilSuspended(tag: String) async { await breakpoints.waitUntilSuspended(tag: tag) }
}
