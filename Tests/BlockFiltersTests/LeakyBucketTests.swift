import BlockFilters
import DriverTesting
import StorageSchema
import StrataBase
import StrataTesting
import Testing

@Suite("throttling: buckets in simulated time")
struct LeakyBucketTests {
    /// When each of `requests` (in bytes) that all come at time 0 starts, in milliseconds.
    private static func starts(_ limits: ThrottleLimits, _ requests: [(ThrottleMeter.Direction, Int)]) throws -> [Int] {
        var settings = ThrottleSettings()
        settings.apply(limits)
        try settings.check()
        var meter = ThrottleMeter(settings, now: 0)
        var now: Int64 = 0
        var starts: [Int] = []
        for (direction, byteCount) in requests {
            while true {
                let delay = meter.waitingTime(direction, now: now)
                if delay == 0 { break }
                now += delay
            }
            meter.add(byteCount, direction)
            starts.append(Int((Double(now) / 1e6).rounded()))
        }
        return starts
    }

    private static func reads(_ count: Int, of byteCount: Int) -> [(ThrottleMeter.Direction, Int)] { Array(repeating: (.read, byteCount), count: count) }

    /// The expected times are those at which qemu-storage-daemon 10.0.2 answered the same requests over NBD, less the microseconds of the transport.
    @Test("requests start when QEMU starts them")
    func asQEMU() throws {
        #expect(try Self.starts(ThrottleLimits(iopsTotal: 100), Self.reads(15, of: 512)) == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 20, 30, 40])
        #expect(try Self.starts(ThrottleLimits(iopsTotal: 5), Self.reads(5, of: 512)) == [0, 100, 300, 500, 700])
        let burst = try Self.starts(ThrottleLimits(iopsTotal: 50, iopsTotalMax: 100, iopsTotalMaxLength: 1), Self.reads(105, of: 512))
        #expect(burst.prefix(101).allSatisfy { $0 == 0 } && burst.suffix(4) == [20, 40, 60, 80])
        let long = try Self.starts(ThrottleLimits(iopsTotal: 20, iopsTotalMax: 100, iopsTotalMaxLength: 2), Self.reads(300, of: 512))
        #expect(long.prefix(14) == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 20, 30] && long[219] == 2090)
        // After the burst of 2 s at 100/s the pace is 20/s: bucket of 200, filled at 100 and emptied at 20 per second.
        #expect(long[299] - long[298] == 50)
        let sizes = Self.reads(10, of: 8192) + Self.reads(10, of: 2048) + Self.reads(4, of: 6144)
        #expect(
            try Self.starts(ThrottleLimits(iopsTotal: 100, iopsSize: 4096), sizes)
                == [0, 0, 0, 0, 0, 0, 20, 40, 60, 80, 100, 110, 120, 130, 140, 150, 160, 170, 180, 190, 200, 215, 230, 245])
        #expect(try Self.starts(ThrottleLimits(bpsTotal: 1 << 20), Self.reads(5, of: 65536)) == [0, 0, 25, 88, 150])
        #expect(try Self.starts(ThrottleLimits(bpsTotal: 1 << 20), Self.reads(3, of: 1 << 20)) == [0, 900, 1900])
    }

    @Test("a limit of reads does not hold back writes, and the other way round")
    func directions() throws {
        let mixed: [(ThrottleMeter.Direction, Int)] = Self.reads(6, of: 512) + Array(repeating: (.write, 512), count: 6)
        #expect(try Self.starts(ThrottleLimits(iopsWrite: 50), mixed) == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        #expect(try Self.starts(ThrottleLimits(iopsRead: 50), mixed.reversed() + [(.write, 512)]).last == 0)
        // A total counts both.
        #expect(try Self.starts(ThrottleLimits(iopsTotal: 50), mixed).suffix(6) == [20, 40, 60, 80, 100, 120])
    }

    @Test("over any length of time the rate stays below the limit plus one full bucket", arguments: 1...50 as ClosedRange<UInt64>)
    func rate(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let average = Int.random(in: 1...5000, using: &random)
        let maximum = Bool.random(using: &random) ? 0 : average * Int.random(in: 1...10, using: &random)
        let length = maximum == 0 ? 1 : Int.random(in: 1...5, using: &random)
        var settings = ThrottleSettings()
        settings.apply(ThrottleLimits(bpsTotal: average, bpsTotalMax: maximum, bpsTotalMaxLength: length))
        try settings.check()
        var meter = ThrottleMeter(settings, now: 0)
        let capacity = maximum == 0 ? Double(average) / 10 : Double(maximum * length)
        var now: Int64 = 0
        var total = 0.0, largest = 0
        for _ in 0..<2000 {
            if Int.random(in: 0..<20, using: &random) == 0 { now += Int64.random(in: 0..<2_000_000_000, using: &random) }
            var delay = meter.waitingTime(.write, now: now)
            while delay > 0 {
                now += delay
                delay = meter.waitingTime(.write, now: now)
                // One wait is enough but for the last nanosecond of rounding.
                try #require(delay <= 1, "seed \(seed)")
            }
            let size = Int.random(in: 1...average, using: &random)
            meter.add(size, .write)
            total += Double(size)
            largest = max(largest, size)
            let allowed = capacity + Double(average) * Double(now) / 1e9 + Double(largest) + 1
            try #require(total <= allowed, "seed \(seed): \(total) of \(allowed) after \(now) ns")
        }
    }

    @Test("what contradicts itself is refused in QEMU's words")
    func refusals() {
        let cases: [(ThrottleLimits, String)] = [
            (ThrottleLimits(iopsTotal: -1), "bps/iops/max values must be within [0, 1000000000000000]"),
            (ThrottleLimits(iopsTotal: 1_000_000_000_000_001), "bps/iops/max values must be within [0, 1000000000000000]"),
            (ThrottleLimits(iopsTotal: 100, iopsRead: 5), "bps/iops/max total values and read/write values cannot be used at the same time"),
            (ThrottleLimits(bpsTotal: 100, bpsWrite: 5), "bps/iops/max total values and read/write values cannot be used at the same time"),
            (ThrottleLimits(iopsTotalMax: 100), "bps_max/iops_max require corresponding bps/iops values"),
            (ThrottleLimits(iopsTotal: 100, iopsTotalMax: 50), "bps_max/iops_max cannot be lower than bps/iops"),
            (ThrottleLimits(iopsTotal: 100, iopsTotalMaxLength: 5), "burst length set without burst rate"),
            (ThrottleLimits(iopsTotal: 100, iopsTotalMax: 200, iopsTotalMaxLength: 0), "the burst length cannot be 0"),
            (ThrottleLimits(iopsTotal: 100, iopsTotalMax: 200, iopsTotalMaxLength: -1), "burst length too high for this burst rate"),
            (ThrottleLimits(iopsTotal: 100, iopsTotalMax: 1_000_000_000_000_000, iopsTotalMaxLength: 2), "burst length too high for this burst rate"),
            (ThrottleLimits(iopsSize: 4096), "iops size requires an iops value to be set"),
        ]
        for (limits, expected) in cases {
            var settings = ThrottleSettings()
            settings.apply(limits)
            do throws(BlockError) {
                try settings.check()
                Issue.record("\(limits) was accepted")
            } catch { #expect(error.description == expected) }
        }
    }
}
