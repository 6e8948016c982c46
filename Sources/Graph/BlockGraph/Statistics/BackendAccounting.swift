import IOCore
import StrataBase
import Synchronization

/// What requests are counted as.
package enum AccountedOperation: CaseIterable, Sendable, Hashable { case read, write, zoneAppend, flush, unmap }

/// Counts the requests of one backend and the time they take, for `query-blockstats`.
///
/// It costs a request that is answered at once two readings of the processor's counter and four stores, and no lock:
/// Docs/Decisions/0006-request-accounting.md has the figures. Any thread.
package final class BackendAccounting: Sendable {
    /// The counters of one kind of request. Several threads may add at once. They wrap around, so that an addition is one instruction.
    private struct Counters: ~Copyable, Sendable {
        let bytes = Atomic<Int>(0)
        let operations = Atomic<Int>(0)
        let ticks = Atomic<UInt64>(0)
        let failed = Atomic<Int>(0)
        let invalid = Atomic<Int>(0)
    }

    private struct Histograms: Sendable {
        var reads: LatencyHistogram?
        var writes: LatencyHistogram?
        var zoneAppends: LatencyHistogram?
        var flushes: LatencyHistogram?

        subscript(operation: AccountedOperation) -> LatencyHistogram? {
            get {
                switch operation {
                case .read: reads
                case .write: writes
                case .zoneAppend: zoneAppends
                case .flush: flushes
                case .unmap: nil
                }
            }
            set {
                switch operation {
                case .read: reads = newValue
                case .write: writes = newValue
                case .zoneAppend: zoneAppends = newValue
                case .flush: flushes = newValue
                case .unmap: break
                }
            }
        }
    }

    private let reads = Counters()
    private let writes = Counters()
    private let flushes = Counters()
    private let unmaps = Counters()
    /// When the last request ended, in ticks; 0 before the first one.
    private let lastEnd = Atomic<UInt64>(0)
    /// Whether `histograms` has any: read without its lock.
    private let hasHistograms = Atomic<Bool>(false)
    private let histograms = Mutex(Histograms())

    init() { TickClock.prepare() }

    // MARK: Counting

    /// Notes a request that has succeeded.
    /// - Parameter start: what `TickClock.now` was when it began.
    @inline(__always)
    package func finished(_ operation: AccountedOperation, byteCount: Int, since start: UInt64) {
        let now = TickClock.now
        // Counters of several processors may be a few ticks apart.
        let elapsed = now > start ? now - start : 0
        switch operation {
        case .read: Self.add(byteCount, elapsed, to: reads)
        case .write: Self.add(byteCount, elapsed, to: writes)
        case .flush: Self.add(byteCount, elapsed, to: flushes)
        case .unmap: Self.add(byteCount, elapsed, to: unmaps)
        case .zoneAppend: return
        }
        lastEnd.store(now, ordering: .relaxed)
        if hasHistograms.load(ordering: .relaxed) { record(operation, elapsed) }
    }

    @inline(__always)
    private static func add(_ byteCount: Int, _ elapsed: UInt64, to counters: borrowing Counters) {
        counters.bytes.wrappingAdd(byteCount, ordering: .relaxed)
        counters.operations.wrappingAdd(1, ordering: .relaxed)
        counters.ticks.wrappingAdd(elapsed, ordering: .relaxed)
    }

    /// Notes a request that has failed. It counts as access, and its time counts.
    func failed(_ operation: AccountedOperation, since start: UInt64) {
        let now = TickClock.now
        let elapsed = now > start ? now - start : 0
        with(operation) { counters in
            counters.failed.add(1, ordering: .relaxed)
            counters.ticks.wrappingAdd(elapsed, ordering: .relaxed)
        }
        lastEnd.store(now, ordering: .relaxed)
        if hasHistograms.load(ordering: .relaxed) { record(operation, elapsed) }
    }

    /// Notes a request that made no sense and was refused before anything was done. It counts as access.
    package func refused(_ operation: AccountedOperation) {
        with(operation) { counters in _ = counters.invalid.add(1, ordering: .relaxed) }
        lastEnd.store(TickClock.now, ordering: .relaxed)
    }

    private func with(_ operation: AccountedOperation, _ body: (borrowing Counters) -> Void) {
        switch operation {
        case .read: body(reads)
        case .write: body(writes)
        case .flush: body(flushes)
        case .unmap: body(unmaps)
        case .zoneAppend: break
        }
    }

    private func record(_ operation: AccountedOperation, _ ticks: UInt64) {
        histograms.withLock { histograms in
            // Each in its place: going through the subscript would copy the bins.
            switch operation {
            case .read: histograms.reads?.count(ticks)
            case .write: histograms.writes?.count(ticks)
            case .zoneAppend: histograms.zoneAppends?.count(ticks)
            case .flush: histograms.flushes?.count(ticks)
            case .unmap: break
            }
        }
    }

    // MARK: Asking

    /// One kind of request, as counted so far.
    package struct Totals: Sendable, Hashable {
        package var bytes = 0
        package var operations = 0
        package var nanoseconds = 0
        package var failed = 0
        package var invalid = 0
        package init() {}
    }

    package func totals(_ operation: AccountedOperation) -> Totals {
        var totals = Totals()
        let rate = TickClock.nanosecondsPerTick
        with(operation) { counters in
            totals.bytes = counters.bytes.load(ordering: .relaxed)
            totals.operations = counters.operations.load(ordering: .relaxed)
            totals.nanoseconds = Int(clamping: Int64(Double(counters.ticks.load(ordering: .relaxed)) * rate))
            totals.failed = counters.failed.load(ordering: .relaxed)
            totals.invalid = counters.invalid.load(ordering: .relaxed)
        }
        return totals
    }

    /// Nanoseconds since the last request ended; nil before the first one.
    package var idleNanoseconds: Int? {
        let last = lastEnd.load(ordering: .relaxed)
        let now = TickClock.now
        return last == 0 ? nil : Int(Double(now > last ? now - last : 0) * TickClock.nanosecondsPerTick)
    }

    // MARK: Histograms

    /// Begins a new histogram for each of the operations, dropping what theirs have counted.
    /// - Parameter boundaries: nanoseconds, ascending, each above 0.
    package func startHistograms(_ boundaries: [AccountedOperation: [UInt64]]) {
        let rate = TickClock.nanosecondsPerTick
        histograms.withLock { histograms in
            for (operation, list) in boundaries { histograms[operation] = LatencyHistogram(boundaries: list, nanosecondsPerTick: rate) }
        }
        hasHistograms.store(true, ordering: .relaxed)
    }

    package func removeHistograms() {
        hasHistograms.store(false, ordering: .relaxed)
        histograms.withLock { $0 = Histograms() }
    }

    package func histogram(_ operation: AccountedOperation) -> LatencyHistogram? { histograms.withLock { $0[operation] } }
}

/// How many requests took how long.
package struct LatencyHistogram: Sendable, Hashable {
    /// Nanoseconds. A bin ends below its boundary; the last bin has none.
    package let boundaries: [UInt64]
    package private(set) var bins: [UInt64]
    private let boundariesInTicks: [UInt64]

    init(boundaries: [UInt64], nanosecondsPerTick rate: Double) {
        self.boundaries = boundaries
        bins = [UInt64](repeating: 0, count: boundaries.count + 1)
        boundariesInTicks = boundaries.map { UInt64(exactly: (Double($0) / rate).rounded()) ?? .max }
    }

    /// Whether the list can be boundaries: not empty, ascending, above 0.
    package static func accepts(_ boundaries: [UInt64]) -> Bool {
        var previous: UInt64 = 0
        for boundary in boundaries {
            if boundary <= previous { return false }
            previous = boundary
        }
        return !boundaries.isEmpty
    }

    mutating func count(_ ticks: UInt64) {
        // The number of boundaries that are not above the value, found by halving.
        var (low, high) = (0, boundariesInTicks.count)
        while low < high {
            let middle = (low + high) / 2
            if boundariesInTicks[middle] <= ticks { low = middle + 1 } else { high = middle }
        }
        bins[low] += 1
    }
}
