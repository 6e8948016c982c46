import BlockGraph
import IOCore
import StrataBase
import Synchronization

/// A run of `bench`: workers that take the next request as soon as their last one is done.
///
/// The workers are tasks of one context; the run is an actor that executes on that context, so that a worker which does not suspend pays nothing
/// for exclusion. While requests are answered at once, one worker does all the work, and the others find nothing left to do.
actor BenchRun {
    private let context: IOContext
    private let backend: BlockBackend
    private let plan: BenchPlan
    /// Bytes; offsets wrap around here.
    private let imageSize: Int
    /// What writes carry so that they obey the cache mode.
    private let writeFlags: RequestFlags
    private var nextOffset: Int
    private var issued = 0
    /// The same for those who ask from elsewhere.
    private let begun = Atomic(0)
    private let writesUnderWay = InFlightCounter()
    private var firstError: BlockError?
    /// Set while a flush waits for the writes under way and then runs: no write starts.
    private var flushIsExclusive = false
    private let idle = AsyncMutex()

    // SAFETY: the run holds its context for as long as it lives.
    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe context.asUnownedSerialExecutor() }

    init(_ plan: BenchPlan, on backend: BlockBackend, writeFlags: RequestFlags, context: IOContext) {
        self.plan = plan
        self.backend = backend
        self.writeFlags = writeFlags
        imageSize = backend.length
        self.context = context
        nextOffset = plan.offset
    }

    /// How many requests have been sent. Any thread.
    nonisolated var position: (done: Int, total: Int) { (begun.load(ordering: .relaxed), plan.count) }

    /// Sends all requests.
    /// - Throws: the first error; requests under way are finished before.
    func run() async throws(BlockError) {
        let buffers = IOBuffer(byteCount: plan.bufferSize * (plan.isWrite ? 1 : plan.depth))
        buffers.vector.fill(with: plan.isWrite ? plan.pattern : 0)
        await withTaskGroup(of: Void.self) { group in
            for index in 0..<min(plan.depth, plan.count) {
                // A write only reads its buffer, so all share one; each reader has a part of its own.
                let start = plan.isWrite ? 0 : index * plan.bufferSize
                let vector = buffers.vector(at: start, byteCount: plan.bufferSize)
                group.addTask(executorPreference: context) { await self.work(vector) }
            }
        }
        withExtendedLifetime(buffers) {}
        if let firstError { throw firstError }
    }

    private func work(_ buffer: IOVector) async {
        do throws(BlockError) {
            if plan.isWrite {
                while let offset = try nextRequest() { try await write(buffer, at: offset) }
            } else {
                while let offset = try nextRequest() {
                    if !backend.tryRead(buffer, at: offset) { try await backend.read(buffer, at: offset, flags: []) }
                }
            }
        } catch {
            if firstError == nil { firstError = error }
        }
    }

    /// Where the next request goes; nil when there is none left or one has failed.
    /// - Throws: `.io` for one that is not inside, as a device fails it.
    private func nextRequest() throws(BlockError) -> GuestOffset? {
        guard issued < plan.count, firstError == nil else { return nil }
        issued += 1
        begun.store(issued, ordering: .relaxed)
        guard nextOffset <= imageSize - plan.bufferSize else { throw BlockError(.io, "A request at offset \(nextOffset) is outside the image") }
        let offset = GuestOffset(nextOffset)
        nextOffset &+= plan.step
        if nextOffset >= imageSize || nextOffset < 0 { nextOffset = imageSize > 0 ? (nextOffset % imageSize) : 0 }
        return offset
    }

    private func write(_ buffer: IOVector, at offset: GuestOffset) async throws(BlockError) {
        let number = issued
        while flushIsExclusive {
            await idle.lock()
            idle.unlock()
        }
        if !backend.tryWrite(buffer, at: offset, flags: writeFlags) {
            writesUnderWay.enter()
            defer { writesUnderWay.leave() }
            try await backend.write(buffer, at: offset, flags: writeFlags)
        }
        if plan.flushInterval > 0 && number % plan.flushInterval == 0 { try await flush() }
    }

    private func flush() async throws(BlockError) {
        if plan.drainsOnFlush {
            await idle.lock()
            flushIsExclusive = true
            await writesUnderWay.waitUntilIdle()
        }
        defer {
            if plan.drainsOnFlush {
                flushIsExclusive = false
                idle.unlock()
            }
        }
        try await backend.flush()
    }
}
