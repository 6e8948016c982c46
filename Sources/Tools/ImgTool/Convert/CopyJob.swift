import BlockGraph
import IOCore
import StrataBase
import Synchronization
import ToolSupport

/// Copies a source into a target: workers on one or more I/O contexts take stripes, find out what is there, and write what the target does
/// not have already.
final class CopyJob: Sendable {
    struct Settings: Sendable {
        /// Requests under way at once, over all contexts.
        var workers = 8
        /// Bytes of zeroes in a row that are worth leaving out; 0 writes everything.
        var sparseUnit = 4096
        /// Whether everything reads as zero before the first write.
        var targetIsZero = false
        /// Whether the target has a backing file that supplies what the source does not store itself.
        var targetHasBacking = false
        /// Whether stripes may be written in any order.
        var isUnordered = false
        /// Bytes that one request moves at most: what two workers read and write again stays in the processor's cache.
        var stripeSize = 256 << 10
        /// Whether the data is to be stored compressed.
        var compresses = false
        /// What the target compresses together, in bytes; nil for a target that is not compressed.
        var compressionUnit: Int?
        /// What writes carry so that they obey the cache mode.
        var writeFlags: RequestFlags = []
        /// Bytes per second; nil for as fast as possible.
        var rate: Int?
        init() {}
    }

    private let runs: RunMap
    private let target: BlockBackend
    private let settings: Settings
    /// Bytes that are written together: everything that goes to the target begins at multiples of it.
    private let unit: Int
    private let dataFlags: RequestFlags
    private let scan: ZeroScan
    private let cursor: StripeCursor
    private let order: WriteOrder?
    private let limiter: RateLimiter?
    private let progress: ProgressReporter
    private let failure = Mutex<BlockError?>(nil)

    init(_ source: ConvertSource, to target: BlockBackend, clusterSize: Int?, _ settings: Settings, progress: ProgressReporter) {
        runs = RunMap(source, keepsBacking: settings.targetHasBacking)
        self.target = target
        self.settings = settings
        unit = settings.compressionUnit ?? 1
        dataFlags = settings.compressionUnit == nil ? settings.writeFlags : settings.writeFlags.union(.compressed)
        self.progress = progress
        // Leaving out part of a cluster saves nothing: the target would have to fill it up.
        scan = ZeroScan(unit: settings.sparseUnit == 0 ? 0 : settings.compressionUnit ?? max(settings.sparseUnit, clusterSize ?? 0))
        cursor = StripeCursor(length: source.length, stripeSize: max(settings.stripeSize, unit))
        order = settings.isUnordered ? nil : WriteOrder()
        limiter = settings.rate.map(RateLimiter.init)
    }

    /// Copies everything.
    /// - Parameter contexts: where the workers run; the work is shared out evenly.
    /// - Throws: the first error. The target is then incomplete.
    func run(on contexts: [IOContext]) async throws(BlockError) {
        await withTaskGroup(of: Void.self) { group in
            for index in 0..<max(settings.workers, contexts.count) {
                group.addTask(executorPreference: contexts[index % contexts.count]) { await self.work() }
            }
        }
        if let error = failure.withLock({ $0 }) { throw error }
    }

    private func work() async {
        // Taken when the first data is met: a worker that never gets a turn needs none.
        var buffer: IOBuffer?
        while let stripe = cursor.next() {
            do throws(BlockError) {
                try await copy(stripe, &buffer)
            } catch {
                failure.withLock { if $0 == nil { $0 = error } }
                cursor.stop()
                order?.abandon()
            }
            order?.finish(stripe.number)
            progress.report(cursor.finish(stripe), of: cursor.length)
            // A worker whose requests are all answered at once would keep its thread for itself, and with it tasks that others wait for.
            await Task.yield()
        }
    }

    private func copy(_ stripe: StripeCursor.Stripe, _ buffer: inout IOBuffer?) async throws(BlockError) {
        var position = stripe.range.lowerBound
        var hasTurn = order == nil
        while position < stripe.range.upperBound {
            let run = try await status(at: position)
            let kind = run.kind
            let isNothing = kind == .backing || (kind == .zero && settings.targetIsZero && settings.sparseUnit > 0)
            var end = wholeUnits(upTo: min(run.range.upperBound, stripe.range.upperBound))
            // A unit of several runs is written as a whole, also the parts that would not have to be.
            let isMixed = end <= position
            if isMixed { end = min(position + unit, stripe.range.upperBound) }
            if isNothing, !isMixed {
                let next = wholeUnits(upTo: run.range.upperBound)
                if next > stripe.range.upperBound { cursor.skip(to: next) }
                position = end
                continue
            }
            if let limiter { await limiter.wait(for: end - position) }
            if kind == .zero && settings.sparseUnit > 0 && !isMixed {
                if !hasTurn { await order?.waitForTurn(of: stripe.number) }
                hasTurn = true
                try await writeZeroes(position..<end)
            } else {
                let memory = buffer ?? IOBuffer(byteCount: max(settings.stripeSize, unit))
                buffer = memory
                let data = memory.vector(at: 0, byteCount: end - position)
                if isMixed {
                    try await readMixed(data, at: position)
                } else if kind == .zero {
                    data.zero()
                } else {
                    try await read(data, of: run.part, at: position)
                }
                if !hasTurn { await order?.waitForTurn(of: stripe.number) }
                hasTurn = true
                try await write(data, at: GuestOffset(position), mayBeZero: kind == .data || (isMixed && settings.sparseUnit > 0))
                withExtendedLifetime(memory) {}
            }
            position = end
        }
    }

    /// Where the last whole unit before `position` ends. The last one of all ends with the source.
    private func wholeUnits(upTo position: Int) -> Int {
        unit == 1 || position >= cursor.length ? position : position / unit * unit
    }

    /// Reads what several runs have.
    private func readMixed(_ data: IOVector, at start: Int) async throws(BlockError) {
        var done = 0
        while done < data.byteCount {
            let run = try await status(at: start + done)
            let count = min(run.range.upperBound - start - done, data.byteCount - done)
            let part = data.slice(at: done, byteCount: count)
            if run.kind == .zero { part.zero() } else { try await read(part, of: run.part, at: start + done) }
            done += count
        }
    }

    private func status(at position: Int) async throws(BlockError) -> ConvertSource.Run {
        do {
            return try await runs.run(at: position)
        } catch {
            throw error.during("error while reading block status at offset \(position)")
        }
    }

    private func read(_ data: IOVector, of part: ConvertSource.Part, at position: Int) async throws(BlockError) {
        let offset = GuestOffset(position - part.start)
        if part.backend.tryRead(data, at: offset) { return }
        do {
            try await part.backend.read(data, at: offset)
        } catch {
            throw error.during("error while reading at byte \(position)")
        }
    }

    private func write(_ data: IOVector, at offset: GuestOffset, mayBeZero: Bool) async throws(BlockError) {
        guard mayBeZero else { return try await writeData(data, at: offset) }
        try await scan.forEachRun(of: data, at: offset) { (start, byteCount, isZero) async throws(BlockError) in
            if !isZero {
                try await self.writeData(data.slice(at: start, byteCount: byteCount), at: offset + start)
            } else if !self.settings.targetIsZero {
                let first = offset.rawValue + start
                try await self.writeZeroes(first..<first + byteCount)
            }
        }
    }

    private func writeData(_ data: IOVector, at offset: GuestOffset) async throws(BlockError) {
        let end = offset.rawValue + data.byteCount
        let whole = end == target.length ? data.byteCount : data.byteCount / unit * unit
        if whole > 0 { try await writePart(data.slice(at: 0, byteCount: whole), at: offset, dataFlags) }
        // An existing target can go on behind the source: then the end of the source is not the end of a unit.
        if whole < data.byteCount {
            try await writePart(data.slice(at: whole, byteCount: data.byteCount - whole), at: offset + whole, settings.writeFlags)
        }
    }

    private func writePart(_ data: IOVector, at offset: GuestOffset, _ flags: RequestFlags) async throws(BlockError) {
        if target.tryWrite(data, at: offset, flags: flags) { return }
        do {
            try await target.write(data, at: offset, flags: flags)
        } catch {
            throw error.during("error while writing at byte \(offset.rawValue)")
        }
    }

    private func writeZeroes(_ range: Range<Int>) async throws(BlockError) {
        do {
            try await target.writeZeroes(GuestRange(GuestOffset(range.lowerBound), byteCount: range.count), flags: [.mayUnmap])
        } catch {
            throw error.during("error while writing at byte \(range.lowerBound)")
        }
    }
}
