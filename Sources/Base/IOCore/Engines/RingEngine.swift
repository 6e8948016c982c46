internal import CStrataLinux
import Glibc
import StrataBase
import Synchronization

/// File requests through one context's io_uring. Own thread only, which is what SINGLE_ISSUER promises the kernel.
@safe final class RingEngine {
    /// Requests that wait in the submission queue at most; more are submitted at once.
    private static let entries: UInt32 = 256
    /// Marks the completion of the poll on the context's epoll descriptor.
    private static let pollToken = UInt64.max

    private var ring: strata_uring
    private var slots: [Slot] = []
    private var freeSlots: [Int] = []
    private var inFlight = 0
    /// Whether a poll request on the epoll descriptor is in the kernel.
    private var pollIsArmed = false
    /// For trace points.
    private let threadName: String
    private let completions: UnsafeMutableBufferPointer<strata_completion>

    /// A request in the kernel: who waits for it, and the iovecs that describe it.
    @safe private struct Slot {
        var continuation: UnsafeContinuation<Int32, Never>?
        var vector = KernelVector()
    }

    /// - Returns: nil and the errno when the kernel has no ring to give.
    static func open(onThread name: String) -> (engine: RingEngine?, error: Int32) {
        var ring = unsafe strata_uring()
        let result = unsafe strata_uring_open(&ring, entries)
        return result < 0 ? (nil, -result) : (unsafe RingEngine(ring, name), 0)
    }

    private init(_ ring: strata_uring, _ threadName: String) {
        self.threadName = threadName
        unsafe self.ring = unsafe ring
        unsafe completions = .allocate(capacity: 256)
    }

    deinit {
        unsafe strata_uring_close(&ring)
        for index in slots.indices { slots[index].vector.deallocate() }
        unsafe completions.deallocate()
    }

    /// Whether there is anything to submit or to wait for.
    var isBusy: Bool { inFlight > 0 }

    enum Operation: String { case read, write, flush }

    /// Queues a request and suspends until it completes.
    /// - Returns: the kernel's result: bytes transferred, or a negative errno.
    func perform(_ operation: Operation, _ descriptor: Int32, _ vector: IOVector?, at offset: Int) async -> Int32 {
        unsafe await withUnsafeContinuation { continuation in
            unsafe enqueue(operation, descriptor, vector, at: offset, continuation)
        }
    }

    private func enqueue(_ operation: Operation, _ descriptor: Int32, _ vector: IOVector?, at offset: Int, _ continuation: UnsafeContinuation<Int32, Never>) {
        let index = takeSlot()
        unsafe slots[index].continuation = unsafe continuation
        var count: UInt32 = 0
        var address: UnsafeRawPointer?
        if let vector {
            let described = unsafe slots[index].vector.describe(vector)
            unsafe address = unsafe UnsafeRawPointer(described.start)
            count = unsafe described.count
        }
        let code =
            switch operation {
            case .read: STRATA_URING_READV
            case .write: STRATA_URING_WRITEV
            case .flush: STRATA_URING_FDATASYNC
            }
        inFlight += 1
        Trace.ioRingSubmit(
            thread: threadName, request: index, operation: operation.rawValue, descriptor: Int(descriptor), offset: offset, bytes: vector?.byteCount ?? 0)
        // SAFETY: the vector's memory lives until the continuation resumes (the rule of IOVector), the list until the slot is freed.
        while unsafe strata_uring_prepare(&ring, Int32(code), descriptor, address, count, UInt64(offset), UInt64(index)) == -EBUSY {
            // A kernel that has nowhere to put completions takes nothing before some are collected.
            if unsafe strata_uring_enter(&ring, 0, -1) < 0 { _ = collect() }
        }
    }

    private func takeSlot() -> Int {
        if let index = freeSlots.popLast() { return index }
        slots.append(Slot())
        return slots.count - 1
    }

    /// Submits what is queued, collects what is complete, and waits for the first completion if it may.
    ///
    /// While it waits, a poll request on `epoll` sits in the ring, so that sockets, timers and wake-ups end the wait as well.
    /// - Returns: whether descriptors in `epoll` became ready, and whether the ring is watching them (if not, the caller looks itself).
    func submitAndCollect(waitNanoseconds: Int64, watching epoll: Int32) -> (descriptorsReady: Bool, armed: Bool) {
        if waitNanoseconds != 0, !pollIsArmed {
            pollIsArmed = unsafe strata_uring_prepare(&ring, Int32(STRATA_URING_POLL), epoll, nil, 0, 0, Self.pollToken) == 0
        }
        let armed = pollIsArmed
        // Without the poll a wait could miss a wake-up: look and come back instead.
        let wait: UInt32 = waitNanoseconds != 0 && armed ? 1 : 0
        _ = unsafe strata_uring_enter(&ring, wait, waitNanoseconds)
        return (collect(), armed)
    }

    /// Ends the requests that are complete.
    /// - Returns: whether descriptors became ready.
    private func collect() -> Bool {
        var descriptorsReady = false
        while true {
            let count = Int(unsafe strata_uring_reap(&ring, completions.baseAddress, UInt32(completions.count)))
            for index in 0..<count {
                let completion = unsafe completions[index]
                if completion.user_data == Self.pollToken {
                    pollIsArmed = false
                    descriptorsReady = true
                } else {
                    finish(Int(completion.user_data), completion.result)
                }
            }
            if unsafe count < completions.count { break }
        }
        return descriptorsReady
    }

    private func finish(_ index: Int, _ result: Int32) {
        inFlight -= 1
        Trace.ioRingComplete(thread: threadName, request: index, result: Int(result))
        let continuation = unsafe slots[index].continuation
        unsafe slots[index].continuation = nil
        slots[index].vector.forget()
        freeSlots.append(index)
        unsafe continuation?.resume(returning: result)
    }
}

extension IOContext {
    private static let refusalReported = Atomic<Bool>(false)

    /// This context's ring, made at the first use. Nil when the kernel refuses one, as in many containers: reported once per process, and
    /// requests go to the thread pool instead. Own thread.
    func ringEngine() -> RingEngine? {
        if let ring { return ring }
        if ringRefusal != 0 { return nil }
        let (engine, error) = RingEngine.open(onThread: name)
        ring = engine
        ringRefusal = error
        if engine == nil { Trace.ioRingRefused(thread: name, reason: BlockError.text(ofErrno: error)) }
        if engine == nil, !Self.refusalReported.exchange(true, ordering: .relaxed) {
            StandardStreams.warn("the kernel refuses io_uring (\(BlockError.text(ofErrno: error))); file requests use worker threads instead")
        }
        return engine
    }
}
