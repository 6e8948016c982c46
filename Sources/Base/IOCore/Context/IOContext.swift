internal import CStrataLinux
package import StrataBase
import Synchronization

/// A thread with an event loop, and the executor of the Swift tasks that do I/O on it.
///
/// The loop waits for sockets with epoll and for file requests with io_uring or native AIO, runs what became ready, then runs the Swift jobs
/// that this made runnable, and starts over. Everything that happens between two waits is one *turn*. Code that runs on the context and does
/// not suspend therefore runs inside one turn, which is what lets a drained section wait for synchronous requests without counting them:
/// after `turnBoundary()` every turn that was running when it was called is over.
///
/// Methods marked "own thread" may be called only from the context's thread; the others from anywhere.
package final class IOContext: SerialExecutor, TaskExecutor, @unchecked Sendable {  // unchecked: own-thread state is reached by its thread only
    /// For messages and thread lists.
    package let name: String
    /// The most requests that native AIO hands to the kernel at once; 0 leaves it to the engine. Any thread.
    package var maxBatch: Int { batchLimit.load(ordering: .relaxed) }
    package func setMaxBatch(_ count: Int) { batchLimit.store(count, ordering: .relaxed) }
    private let batchLimit = Atomic<Int>(0)

    // Own thread.

    /// The thread does nothing but move data for one piece of work, which a call that blocks holds up and nobody else: it writes to the page cache
    /// itself, however much that is, instead of handing the write to another thread.
    package var isForCopying: Bool
    private var jobs = JobQueue()
    private var watches: [Watch?] = []
    private var freeWatches: [Int] = []
    private var generation: UInt32 = 0
    private var spinner: (any SpinningSource)?
    private var spinUntil: Int64 = 0
    private var spinRounds = 0
    private var threadHandle: UInt64 = 0
    var timers = TimerQueue()
    var ring: RingEngine?
    var ringRefusal: Int32 = 0
    var nativeAIO: NativeAIOEngine?
    var nativeAIORefusal: Int32 = 0
    var freeBuffers = FreeBuffers()

    private let epoll: Int32
    private let wakeUp: Int32
    private let inbox = Mutex(Inbox())
    /// Whether the inbox may hold something: read without the lock, so that a busy loop pays nothing for an empty one.
    private let hasMail = Atomic<Bool>(false)
    private let stopping = Atomic<Bool>(false)

    /// What other threads have put in: jobs of tasks that were resumed there, and functions to call.
    private struct Inbox {
        var jobs: [UnownedJob] = []
        var calls: [@Sendable () -> Void] = []
        /// Set while the thread is about to sleep or asleep: the first sender then rings the bell.
        var isWaiting = false
        /// The loop is over: nobody empties the inbox any more.
        var isClosed = false
    }

    private struct Watch {
        let descriptor: Int32
        let generation: UInt32
        let source: any EventSource
    }

    /// - Throws: when the kernel refuses the descriptors that a loop needs.
    package init(name: String, isForCopying: Bool = false) throws(BlockError) {
        self.name = name
        self.isForCopying = isForCopying
        epoll = try Self.check(strata_epoll_open(), "creating an event queue for I/O thread '\(name)'")
        wakeUp = try Self.check(strata_eventfd_open(), "creating an event descriptor for I/O thread '\(name)'")
        _ = try Self.check(strata_epoll_add(epoll, wakeUp, UInt32(STRATA_READABLE), Self.wakeUpToken), "watching the event descriptor of I/O thread '\(name)'")
    }

    deinit {
        freeBuffers.releaseAll()
        _ = strata_close(wakeUp)
        _ = strata_close(epoll)
    }

    private static let wakeUpToken = UInt64.max

    static func check(_ result: Int32, _ what: @autoclosure () -> String) throws(BlockError) -> Int32 {
        if result < 0 { throw BlockError(errno: -result, what()) }
        return result
    }

    // MARK: Where am I

    /// The context whose thread this is, or nil on any other thread.
    package static var current: IOContext? {
        guard let pointer = unsafe strata_thread_context() else { return nil }
        // SAFETY: the pointer is set by `run`, which keeps the context alive until it has reset the pointer.
        return unsafe Unmanaged<IOContext>.fromOpaque(pointer).takeUnretainedValue()
    }

    package var isCurrent: Bool {
        unsafe strata_thread_context() == Unmanaged.passUnretained(self).toOpaque()
    }

    // MARK: Executor

    package func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        if isCurrent {
            jobs.push(job)
            return
        }
        let isDelivered = deliver { $0.jobs.append(job) }
        precondition(isDelivered, "the tasks of an I/O context end before the context does")
    }

    package func asUnownedSerialExecutor() -> UnownedSerialExecutor { unsafe UnownedSerialExecutor(ordinary: self) }

    /// Runs `body` as a task of this context. Its suspensions resume here.
    package func spawn(_ body: @escaping @Sendable () async -> Void) {
        Task(executorPreference: self) { await body() }
    }

    /// Calls `body` on the context's thread, soon; at once, on the caller's, when the context's loop is over.
    package func post(_ body: @escaping @Sendable () -> Void) {
        if !deliver({ $0.calls.append(body) }) { body() }
    }

    /// Waits until the turn that is running now (if any) is over. Returns at once on the context's own thread: the caller is the turn.
    package func turnBoundary() async {
        if isCurrent { return }
        unsafe await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            post { unsafe continuation.resume() }
        }
    }

    /// Puts something into the inbox and wakes the thread if it sleeps. False when the loop is over.
    private func deliver(_ put: (inout sending Inbox) -> Void) -> Bool {
        let (isDelivered, wasWaiting) = inbox.withLock { inbox in
            if inbox.isClosed { return (false, false) }
            put(&inbox)
            let wasWaiting = inbox.isWaiting
            inbox.isWaiting = false
            return (true, wasWaiting)
        }
        hasMail.store(true, ordering: .releasing)
        if wasWaiting { strata_eventfd_signal(wakeUp) }
        return isDelivered
    }

    // MARK: Descriptors (own thread)

    /// Calls `source.ready` whenever `descriptor` is ready for one of `events` (level triggered). Own thread.
    /// - Returns: a token for `changeWatch` and `unwatch`.
    package func watch(_ descriptor: Int32, for events: ReadyEvents, _ source: any EventSource) throws(BlockError) -> WatchToken {
        precondition(isCurrent, "descriptors are watched from the context's own thread")
        generation &+= 1
        let slot = freeWatches.popLast() ?? watches.count
        if slot == watches.count { watches.append(nil) }
        let token = WatchToken(slot: UInt32(slot), generation: generation)
        let result = strata_epoll_add(epoll, descriptor, events.rawValue, token.rawValue)
        if result < 0 {
            freeWatches.append(slot)
            throw BlockError(errno: -result, "watching a descriptor on I/O thread '\(name)'")
        }
        watches[slot] = Watch(descriptor: descriptor, generation: generation, source: source)
        return token
    }

    /// Waits for other events from now on. Own thread.
    package func changeWatch(_ token: WatchToken, to events: ReadyEvents) {
        guard let watch = watch(for: token) else { return }
        _ = strata_epoll_change(epoll, watch.descriptor, events.rawValue, token.rawValue)
    }

    /// Stops watching; call it before the descriptor is closed. Own thread. After it returns `ready` is not called again.
    package func unwatch(_ token: WatchToken) {
        guard let watch = watch(for: token) else { return }
        _ = strata_epoll_remove(epoll, watch.descriptor)
        watches[Int(token.slot)] = nil
        freeWatches.append(Int(token.slot))
        if let spinner, spinner === watch.source { self.spinner = nil }
    }

    private func watch(for token: WatchToken) -> Watch? {
        guard Int(token.slot) < watches.count, let watch = watches[Int(token.slot)], watch.generation == token.generation else { return nil }
        return watch
    }

    /// Before the next wait, asks `source` again and again for up to `nanoseconds` whether something has come. It saves the cost of falling
    /// asleep when the next request is expected at once; the source decides from its own history whether that is likely. Own thread.
    package func spin(_ source: any SpinningSource, nanoseconds: Int64) {
        spinner = source
        spinUntil = strata_monotonic_now() + nanoseconds
    }

    // MARK: The loop

    /// Runs the loop on the calling thread until `stop`.
    package func run() {
        precondition(IOContext.current == nil, "a thread runs one loop")
        unsafe strata_set_thread_context(Unmanaged.passUnretained(self).toOpaque())
        IOContextRegistry.add(self)
        while true {
            runJobs()
            takeMail()
            if !jobs.isEmpty {
                // More to run: collect what is ready without waiting, so that neither side starves the other.
                collect(waitNanoseconds: 0)
                continue
            }
            if stopping.load(ordering: .acquiring), closeInbox() { break }
            if spinner != nil, spinOnce() { continue }
            guard prepareToWait() else { continue }
            collect(waitNanoseconds: timers.nanosecondsToNext())
            inbox.withLock { $0.isWaiting = false }
        }
        ring = nil
        nativeAIO = nil
        freeBuffers.releaseAll()
        strata_set_thread_context(nil)
        IOContextRegistry.remove(self)
    }

    private func runJobs() {
        let serial = unsafe asUnownedSerialExecutor()
        let task = unsafe asUnownedTaskExecutor()
        // A bound keeps tasks that reschedule themselves from starving descriptors.
        var budget = 256
        while budget > 0, let job = jobs.pop() {
            unsafe job.runSynchronously(isolatedTo: serial, taskExecutor: task)
            budget -= 1
        }
    }

    private func takeMail() {
        guard hasMail.load(ordering: .acquiring) || stopping.load(ordering: .relaxed) else { return }
        hasMail.store(false, ordering: .relaxed)
        var mail = inbox.withLock { inbox in
            let mail = inbox
            inbox = Inbox()
            return mail
        }
        for job in mail.jobs { jobs.push(job) }
        for call in mail.calls { call() }
        mail.calls.removeAll()
    }

    /// Ends the taking of mail. False if there is some left, which is to be seen to first.
    private func closeInbox() -> Bool {
        inbox.withLock { inbox in
            inbox.isClosed = inbox.jobs.isEmpty && inbox.calls.isEmpty
            return inbox.isClosed
        }
    }

    /// Announces that the thread is going to sleep. False if mail has come in meanwhile.
    private func prepareToWait() -> Bool {
        inbox.withLock { inbox in
            guard inbox.jobs.isEmpty && inbox.calls.isEmpty else { return false }
            inbox.isWaiting = true
            return true
        }
    }

    /// One look at everything that can become ready, waiting up to the given time for the first (negative: as long as it takes).
    /// - Returns: whether anything was ready.
    @discardableResult
    private func collect(waitNanoseconds: Int64) -> Bool {
        nativeAIO?.submit()
        var found = false
        if let ring, ring.isBusy {
            // The ring also watches the epoll descriptor, so this one call waits for both.
            let ready = ring.submitAndCollect(waitNanoseconds: waitNanoseconds, watching: epoll)
            if ready.descriptorsReady || !ready.armed { found = dispatchEvents(waitNanoseconds: 0) }
        } else {
            found = dispatchEvents(waitNanoseconds: waitNanoseconds)
        }
        if !timers.isEmpty {
            for timer in timers.takeDue() {
                timer.fire()
                found = true
            }
        }
        return found || !jobs.isEmpty
    }

    /// - Returns: whether any descriptor was ready.
    private func dispatchEvents(waitNanoseconds: Int64) -> Bool {
        let events = InlineArray<64, strata_event>(repeating: strata_event())
        var ready = events
        var span = ready.mutableSpan
        let count = unsafe span.withUnsafeMutableBufferPointer { unsafe strata_epoll_wait(epoll, $0.baseAddress, 64, waitNanoseconds) }
        if count <= 0 { return false }
        for index in 0..<Int(count) {
            let event = ready[index]
            if event.token == Self.wakeUpToken {
                strata_eventfd_clear(wakeUp)
                continue
            }
            // A source may have been removed by the one before it: the generation tells.
            guard let watch = watch(for: WatchToken(rawValue: event.token)) else { continue }
            watch.source.ready(ReadyEvents(rawValue: event.events))
        }
        return true
    }

    /// True when something came up, so that the loop turns again before it waits.
    private func spinOnce() -> Bool {
        guard let source = spinner else { return false }
        while true {
            // The source is not alone: the others are looked at now and then, also when this one always has something.
            spinRounds &+= 1
            if spinRounds & 7 == 0 {
                if collect(waitNanoseconds: 0) { return true }
                // The clock costs as much as several rounds.
                if strata_monotonic_now() >= spinUntil {
                    spinner = nil
                    return false
                }
            }
            if source.spin() { return true }
            if hasMail.load(ordering: .relaxed) || !jobs.isEmpty { return true }
            strata_relax()
        }
    }

    // MARK: Life

    /// A context with a thread of its own.
    package static func startThread(name: String, isForCopying: Bool = false) throws(BlockError) -> IOContext {
        let context = try IOContext(name: name, isForCopying: isForCopying)
        // The thread holds one reference for as long as its loop runs.
        let reference = unsafe Unmanaged.passRetained(context).toOpaque()
        var handle: UInt64 = 0
        let result = unsafe strata_thread_start(&handle, name, { argument in unsafe IOContext.threadBody(argument) }, reference)
        if result < 0 {
            unsafe Unmanaged<IOContext>.fromOpaque(reference).release()
            throw BlockError(errno: -result, "starting I/O thread '\(name)'")
        }
        context.threadHandle = handle
        return context
    }

    private static func threadBody(_ argument: UnsafeMutableRawPointer?) {
        guard let argument = unsafe argument else { return }
        // SAFETY: `startThread` passed a retained reference, which is taken over here.
        unsafe Unmanaged<IOContext>.fromOpaque(argument).takeRetainedValue().run()
    }

    /// Ends the loop after its current turn. Requests in flight must be over: their tasks would never resume.
    package func stop() {
        stopping.store(true, ordering: .releasing)
        post {}
    }

    /// Waits until the thread of `startThread` has ended. Call once, after `stop`, from another thread.
    package func join() {
        if threadHandle != 0 { strata_thread_join(threadHandle) }
        threadHandle = 0
    }

    /// Turns the calling thread into a context until `body` is over, and returns what `body` returned. For the main function of a tool.
    package static func runMain<Value: Sendable>(_ body: @escaping @Sendable () async -> Value) throws(BlockError) -> Value {
        let outcome = Outcome<Value>()
        let work: @Sendable () -> Void = {
            do throws(BlockError) {
                let context = try IOContext(name: "main")
                context.spawn { [context] in
                    let result = await body()
                    outcome.value.withLock { $0 = .success(result) }
                    context.stop()
                }
                context.run()
            } catch { outcome.value.withLock { $0 = .failure(error) } }
        }
        // The thread that has come through a fork does not know its own number, without which its locks keep others waiting for ever.
        if strata_is_forked() == 0 { work() } else { try runElsewhere(work) }
        return try outcome.value.withLock { $0 }.get()
    }

    /// Runs `work` on a new thread, in place of the calling one.
    private static func runElsewhere(_ work: @escaping @Sendable () -> Void) throws(BlockError) {
        let reference = unsafe Unmanaged.passRetained(Work(body: work))
        defer { unsafe reference.release() }
        // SAFETY: the thread has ended when the call returns, and the reference is held until then.
        let result = unsafe strata_run_elsewhere(
            { argument in if let argument = unsafe argument { unsafe Unmanaged<Work>.fromOpaque(argument).takeUnretainedValue().body() } }, reference.toOpaque())
        if result < 0 { throw BlockError(errno: -result, "starting the main thread") }
    }

    private final class Work: Sendable {
        let body: @Sendable () -> Void
        init(body: @escaping @Sendable () -> Void) { self.body = body }
    }

    /// Where `runMain` finds what its task returned.
    private final class Outcome<Value: Sendable>: Sendable {
        let value = Mutex<Result<Value, BlockError>>(.failure(BlockError(.cancelled, "the main loop was stopped from outside")))
    }
}
