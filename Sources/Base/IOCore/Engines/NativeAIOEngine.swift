internal import CStrataLinux
import Glibc
import StrataBase

/// File requests through Linux native AIO (`aio=native`), which is asynchronous for O_DIRECT files only. Own thread only.
///
/// Requests of one turn are submitted together; an event descriptor in the context's epoll set tells of completions.
final class NativeAIOEngine: EventSource, @unchecked Sendable {  // unchecked: used by its context's thread only
    /// Requests in the kernel at most; more wait their turn.
    private static let depth = 1024

    private let kernelContext: strata_aio_context
    private let event: Int32
    /// For trace points.
    private let threadName: String
    private var watch: WatchToken?
    private var slots: [Slot] = []
    private var freeSlots: [Int] = []
    private var queued: [Int] = []
    private var inKernel = 0

    @safe private struct Slot {
        var continuation: UnsafeContinuation<Int32, Never>?
        let request: UnsafeMutablePointer<strata_aio_request>
        var vector = KernelVector()
    }

    static func open(on context: IOContext) -> (engine: NativeAIOEngine?, error: Int32) {
        var kernelContext: strata_aio_context = 0
        let result = unsafe strata_aio_open(&kernelContext, UInt32(depth))
        if result < 0 { return (nil, -result) }
        let event = strata_eventfd_open()
        if event < 0 {
            strata_aio_close(kernelContext)
            return (nil, -event)
        }
        let engine = NativeAIOEngine(kernelContext, event, context.name)
        do { engine.watch = try context.watch(event, for: .readable, engine) } catch { return (nil, error.errno) }
        return (engine, 0)
    }

    private init(_ kernelContext: strata_aio_context, _ event: Int32, _ threadName: String) {
        self.threadName = threadName
        self.kernelContext = kernelContext
        self.event = event
    }

    deinit {
        strata_aio_close(kernelContext)
        _ = strata_close(event)
        for index in slots.indices {
            unsafe slots[index].request.deallocate()
            slots[index].vector.deallocate()
        }
    }

    /// Queues a request for the end of this turn and suspends until it completes.
    /// - Parameter maxBatch: submit as soon as this many requests wait; 0: whenever the engine likes.
    /// - Returns: bytes transferred, or a negative errno.
    func perform(write: Bool, _ descriptor: Int32, _ vector: IOVector, at offset: Int, maxBatch: Int) async -> Int32 {
        unsafe await withUnsafeContinuation { continuation in
            let index = takeSlot()
            unsafe slots[index].continuation = unsafe continuation
            let (list, count) = unsafe slots[index].vector.describe(vector)
            // SAFETY: request, list and memory stay in place until the completion: the slot keeps the first two, the caller the third.
            unsafe strata_aio_prepare(slots[index].request, write ? 1 : 0, descriptor, list, count, Int64(offset), event, UInt64(index))
            queued.append(index)
            Trace.ioNativeSubmit(
                thread: threadName, request: index, operation: write ? "write" : "read", descriptor: Int(descriptor), offset: offset, bytes: vector.byteCount)
            if maxBatch > 0, queued.count >= maxBatch { submit() }
        }
    }

    private func takeSlot() -> Int {
        if let index = freeSlots.popLast() { return index }
        unsafe slots.append(Slot(request: .allocate(capacity: 1)))
        return slots.count - 1
    }

    /// Hands the queued requests to the kernel. Called once per turn.
    func submit() {
        while !queued.isEmpty, inKernel < Self.depth {
            let batch = min(queued.count, Self.depth - inKernel, 128)
            let accepted = unsafe withUnsafeTemporaryAllocation(of: UnsafeMutablePointer<strata_aio_request>?.self, capacity: batch) { list in
                for position in 0..<batch { unsafe list.initializeElement(at: position, to: slots[queued[position]].request) }
                return unsafe strata_aio_submit(kernelContext, batch, list.baseAddress)
            }
            if accepted > 0 {
                inKernel += Int(accepted)
                queued.removeFirst(Int(accepted))
            } else if accepted == -EAGAIN && inKernel > 0 {
                Trace.ioNativeFull(thread: threadName, queued: queued.count)
                return  // the kernel is full: a completion makes room
            } else {
                // The first request is at fault: it fails alone.
                let index = queued.removeFirst()
                inKernel += 1
                finish(index, accepted == 0 ? -EIO : accepted)
            }
        }
    }

    func ready(_ events: ReadyEvents) {
        strata_eventfd_clear(event)
        var done = InlineArray<128, strata_completion>(repeating: strata_completion())
        while true {
            var span = done.mutableSpan
            let count = unsafe span.withUnsafeMutableBufferPointer { unsafe strata_aio_reap(kernelContext, $0.baseAddress, 128) }
            if count <= 0 { break }
            for position in 0..<Int(count) { finish(Int(done[position].user_data), done[position].result) }
            if count < 128 { break }
        }
    }

    private func finish(_ index: Int, _ result: Int32) {
        inKernel -= 1
        Trace.ioNativeComplete(thread: threadName, request: index, result: Int(result))
        let continuation = unsafe slots[index].continuation
        unsafe slots[index].continuation = nil
        slots[index].vector.forget()
        freeSlots.append(index)
        unsafe continuation?.resume(returning: result)
    }
}

extension IOContext {
    /// This context's native AIO, made at the first use; nil when the kernel refuses it. Own thread.
    func nativeAIOEngine() -> NativeAIOEngine? {
        if let nativeAIO { return nativeAIO }
        if nativeAIORefusal != 0 { return nil }
        (nativeAIO, nativeAIORefusal) = NativeAIOEngine.open(on: self)
        return nativeAIO
    }
}
