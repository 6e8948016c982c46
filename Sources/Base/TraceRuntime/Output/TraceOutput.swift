internal import CStrataLinux
import Glibc
import Synchronization

/// Takes what trace points tell and writes it out, to standard error unless a file was chosen.
///
/// A trace point appends a record to a buffer in memory under a lock that is held for nothing else; a thread of its own makes text of the records and
/// writes it. The order of records is the order in which the lock was taken, so that of every thread is kept. The buffer is bounded: when the
/// reader of the output is slower than the events, later events are lost and counted, and the output says how many. Nothing that does I/O
/// ever waits for the output.
package enum TraceOutput {
    /// Records that wait for the writer, in bytes.
    static let capacity = 8 << 20

    private struct Pending: ~Copyable {
        var records: [UInt8] = []
        var lost: UInt64 = 0
        var hasWriter = false
    }
    private static let pending = Mutex(Pending())
    /// Held while a batch is taken and written, so that batches stay in order.
    private static let writer = Mutex(TraceWriter())
    private static let bell = TraceBell()

    /// Called by generated code, once it has seen that the event is on.
    /// - Parameter values: adds the event's arguments in their order; it runs under the lock and must not do anything else.
    package static func record(_ event: TraceEvent, _ values: (inout TraceRecordWriter) -> Void) {
        let time = now()
        let thread = strata_thread_id()
        let (rings, startsWriter) = pending.withLock { pending in
            guard pending.records.count < capacity else {
                pending.lost += 1
                return (false, false)
            }
            let wasEmpty = pending.records.isEmpty
            var records: [UInt8] = []
            swap(&records, &pending.records)
            var record = TraceRecordWriter(appendingTo: records)
            records = []
            record.begin(event, nanoseconds: time, thread: thread)
            values(&record)
            pending.records = record.bytes
            let starts = !pending.hasWriter
            pending.hasWriter = true
            return (wasEmpty, starts)
        }
        // Not before the first event: a daemon may fork until then.
        if startsWriter, !startWriter() { pending.withLock { $0.hasWriter = false } }
        if rings { bell.ring() }
    }

    /// Where events go from now on. What was recorded before still goes where it went.
    /// - Throws: the system's reason in one sentence, when the file cannot be created.
    package static func write(toFile path: String, _ format: TraceFormat) throws(TraceOutputError) {
        // SAFETY: the string lives for the time of the call.
        let descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0o666)
        guard descriptor >= 0 else { throw TraceOutputError(path: path, number: errno) }
        flush()
        writer.withLock { $0.change(to: descriptor, path: path, format) }
    }

    /// Events go to standard error in this form from now on.
    package static func writeToStandardError(_ format: TraceFormat) {
        flush()
        writer.withLock { $0.change(to: STDERR_FILENO, path: nil, format) }
    }

    /// Writes out what was recorded before the call. Gives up when the reader takes nothing for two seconds: a program must be able to end.
    package static func flush() {
        let deadline = strata_monotonic_now() + 2_000_000_000
        while !pump(), strata_monotonic_now() < deadline {}
    }

    /// Takes what is pending and writes as much as the reader takes.
    /// - Returns: whether everything is written.
    private static func pump() -> Bool {
        writer.withLock { writer in
            if writer.isIdle {
                let (records, lost) = pending.withLock { pending in
                    // The writer's old memory comes back, so that nothing is allocated in a steady state.
                    var records = writer.spareMemory()
                    swap(&records, &pending.records)
                    defer { pending.lost = 0 }
                    return (records, pending.lost)
                }
                writer.take(records, lost: lost, now: now())
            }
            return writer.write()
        }
    }

    private static func startWriter() -> Bool {
        var handle: UInt64 = 0
        // SAFETY: the thread's body takes no argument and never ends.
        return unsafe strata_thread_start(&handle, "strata-trace", { _ in TraceOutput.writeForever() }, nil) == 0
    }

    private static func writeForever() {
        while true {
            bell.wait()
            while !pump() {}
        }
    }

    private static func now() -> Int64 {
        var time = timespec()
        // SAFETY: the pointer is valid for the time of the call; this clock exists on every Linux.
        _ = unsafe clock_gettime(CLOCK_REALTIME, &time)
        return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
    }
}

/// Why a file for events could not be made.
package struct TraceOutputError: Error, Hashable, Sendable {
    package let path: String
    /// A positive errno.
    package let number: Int32
}

/// A counting semaphore. Ringing takes no lock and never waits.
@safe final class TraceBell: @unchecked Sendable {  // unchecked: a semaphore is made to be shared; its address never changes
    private let semaphore: UnsafeMutablePointer<sem_t>

    init() {
        unsafe semaphore = .allocate(capacity: 1)
        unsafe sem_init(semaphore, 0, 0)
    }

    func ring() { unsafe sem_post(semaphore) }
    func wait() { while unsafe sem_wait(semaphore) != 0 {} }
}
