internal import CStrataLinux
import Glibc

/// Makes text of records and puts it into a descriptor, without waiting long for one that takes nothing.
struct TraceWriter {
    private var descriptor = STDERR_FILENO
    private var path: String?
    private var format = TraceFormat.text
    /// What is formatted and not written yet.
    private var unwritten: [UInt8] = []
    private var written = 0
    private var spare: [UInt8] = []
    private var hasFailed = false

    /// A pipe that can take anything can take this much without blocking.
    private static let chunk = 4096

    var isIdle: Bool { written == unwritten.count }

    mutating func change(to descriptor: Int32, path: String?, _ format: TraceFormat) {
        if self.path != nil { close(self.descriptor) }
        self.descriptor = descriptor
        self.path = path
        self.format = format
        hasFailed = false
        unwritten.removeAll()
        written = 0
    }

    mutating func spareMemory() -> [UInt8] {
        var memory: [UInt8] = []
        swap(&memory, &spare)
        return memory
    }

    mutating func take(_ records: [UInt8], lost: UInt64, now: Int64) {
        unwritten.removeAll(keepingCapacity: true)
        written = 0
        let events = TraceRegistry.events
        var position = 0
        while position < records.count {
            unwritten += TraceRecord(records, at: &position, events: events).line(format).utf8
        }
        if lost > 0 {
            unwritten += TraceRecord(event: Self.lostEvent, nanoseconds: now, thread: strata_thread_id(), values: [.integer(lost)]).line(format).utf8
        }
        spare = records
        spare.removeAll(keepingCapacity: true)
    }

    /// Stands in the output where events are missing.
    private static let lostEvent = TraceEvent(
        "trace_events_lost", slot: 0, isAvailable: false, arguments: [.init("count", .unsigned)],
        pieces: [.value(TraceStyle(.decimal)), .text(" events were lost here: the output was slower than they came")])

    /// Writes until everything is written or nothing was taken for a tenth of a second.
    /// - Returns: whether everything is written.
    mutating func write() -> Bool {
        while !isIdle {
            if hasFailed {
                written = unwritten.count
                break
            }
            var question = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            // SAFETY: one structure, valid for the time of the call.
            let answer = unsafe poll(&question, 1, 100)
            if answer == 0 || (answer < 0 && errno == EINTR) { return false }
            // SAFETY: the range lies inside the array, whose memory stays for the time of the call.
            let count = unsafe unwritten.withUnsafeBytes { bytes in
                unsafe Glibc.write(descriptor, bytes.baseAddress.map { unsafe $0 + written }, min(Self.chunk, bytes.count - written))
            }
            if count > 0 {
                written += count
            } else if count < 0, errno != EINTR, errno != EAGAIN {
                fail(errno)
            }
        }
        return true
    }

    /// A full disk or a reader that has gone ends the output, not the program. Somebody who chose a file is told once.
    private mutating func fail(_ number: Int32) {
        hasFailed = true
        guard let path else { return }
        // SAFETY: strerror returns a NUL-terminated string that outlives this copy.
        let reason = unsafe strerror(number).map { unsafe String(cString: $0) } ?? "error \(number)"
        var message = Array("warning: trace output to '\(path)' ends: \(reason)\n".utf8)
        // SAFETY: the array's own memory and its size.
        _ = unsafe message.withUnsafeMutableBytes { unsafe Glibc.write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }
}
