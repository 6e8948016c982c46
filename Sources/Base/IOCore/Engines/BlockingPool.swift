internal import CStrataLinux
import StrataBase
import Synchronization
import Glibc

/// Worker threads for calls that block: `aio=threads`, fallocate, opening files, name look-ups. One pool for the process.
///
/// Threads are started when work waits and none is idle, up to `maximum`, and then stay.
package enum BlockingPool {
    private static let maximum = 64

    private struct State {
        /// What is taken leaves nil, so that what it holds goes.
        var queue: [(@Sendable () -> Void)?] = []
        /// Index of the next entry.
        var next = 0
        var idle = 0
        var threads = 0
    }

    private static let state = Mutex(State())
    private static let bell = Bell()

    /// Runs `body` on a worker thread and suspends until it is over. May be called from any task.
    package static func run<Result: Sendable>(_ body: @escaping @Sendable () -> Result) async -> Result {
        unsafe await withUnsafeContinuation { (continuation: UnsafeContinuation<Result, Never>) in
            submit { unsafe continuation.resume(returning: body()) }
        }
    }

    /// Has `body` run on a worker thread, some time.
    static func submit(_ body: @escaping @Sendable () -> Void) {
        let startsThread = state.withLock { state in
            state.queue.append(body)
            // An idle thread that has been rung for already still counts as idle until it wakes, so what waits is compared with them.
            if state.queue.count - state.next <= state.idle { return false }
            if state.threads >= maximum {
                Trace.ioWorkerQueue(waiting: state.queue.count - state.next, threads: state.threads)
                return false
            }
            state.threads += 1
            return true
        }
        if startsThread, !startThread() {
            let threads = state.withLock { state in
                state.threads -= 1
                return state.threads
            }
            // With no thread to be had at all the work is done here: slow beats stuck.
            if threads == 0, let work = take() { work() }
        }
        bell.ring()
    }

    private static func startThread() -> Bool {
        var handle: UInt64 = 0
        return unsafe strata_thread_start(&handle, "strata-worker", { _ in BlockingPool.work() }, nil) == 0
    }

    private static func take() -> (@Sendable () -> Void)? {
        state.withLock { state in
            guard state.next < state.queue.count else { return nil }
            let work = state.queue[state.next].take()
            state.next += 1
            if state.next == state.queue.count {
                state.queue.removeAll(keepingCapacity: true)
                state.next = 0
            } else if state.next > 256 {
                // A queue that never empties does not grow for ever.
                state.queue.removeFirst(state.next)
                state.next = 0
            }
            return work
        }
    }

    private static func work() {
        while true {
            while let work = take() { work() }
            state.withLock { $0.idle += 1 }
            // Anything submitted since `take` has rung the bell, which keeps the count.
            bell.wait()
            state.withLock { $0.idle -= 1 }
        }
    }

    /// A counting semaphore.
    @safe private final class Bell: @unchecked Sendable {  // unchecked: a semaphore is made to be shared; its address never changes
        private let semaphore: UnsafeMutablePointer<sem_t>

        init() {
            unsafe semaphore = .allocate(capacity: 1)
            unsafe sem_init(semaphore, 0, 0)
        }

        func ring() { unsafe sem_post(semaphore) }
        func wait() { while unsafe sem_wait(semaphore) != 0 {} }
    }
}
