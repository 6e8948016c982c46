import QAPIRuntime
import Testing
@testable import QMPTool

@Suite("progress of jobs")
struct JobMeterTests {
    private func job(_ status: String, _ done: Int, _ total: Int) -> JSONValue {
        ["id": "j", "type": "mirror", "status": .string(status), "current-progress": .integer(done), "total-progress": .integer(total)]
    }

    @Test("the rate is what came between two looks, and the time left follows from it")
    func rate() {
        var meter = JobMeter(id: "j")
        meter.note(job("running", 0, 100 << 20), now: 10)
        #expect(meter.rate == nil && meter.left == nil)
        meter.note(job("running", 10 << 20, 100 << 20), now: 11)
        #expect(meter.rate == Double(10 << 20))
        #expect(meter.left == 9)
        #expect(meter.line(columns: 100) == "j mirror [##                  ] 10.0%  10.0 MiB/s  0:09 left")
        #expect(meter.json == #"{"id": "j", "type": "mirror", "status": "running", "done": 10485760, "total": 104857600, "rate": 10485760, "left": 9}"#)
        // It does not jump.
        meter.note(job("running", 10 << 20, 100 << 20), now: 12)
        #expect(meter.rate.map { $0 > 0 && $0 < Double(10 << 20) } == true)
    }

    @Test("a job that waits for its user, or has nothing to do, says so instead")
    func waiting() {
        var meter = JobMeter(id: "j")
        meter.note(job("ready", 100, 100), now: 0)
        #expect(meter.waitsForUser)
        #expect(meter.line(columns: 100) == "j mirror [####################] 100.0%  ready")
        // One that finalizes itself passes through this status.
        meter.note(job("pending", 100, 100), now: 0.2)
        #expect(!meter.waitsForUser)
        meter.note(job("pending", 100, 100), now: 0.4)
        #expect(meter.waitsForUser)
        meter.note(job("created", 0, 0), now: 1)
        #expect(!meter.waitsForUser && meter.share == 0 && meter.left == nil)
        #expect(meter.line(columns: 30).count == 29)
    }

    @Test("what a server says that makes no sense does no harm")
    func nonsense() {
        var meter = JobMeter(id: "j")
        meter.note(job("running", 500, 100), now: 0)
        meter.note(job("running", 20, .max), now: 1e-9)
        meter.note(job("running", .max, 0), now: 2e-9)
        #expect(meter.share <= 1)
        #expect(!meter.line(columns: 80).isEmpty && !meter.json.isEmpty)
        meter.note([:], now: 3)
        #expect(meter.status == "")
    }

    @Test("sizes and times are those that people read")
    func words() {
        #expect([0, 512, 1536, 1_073_741_824, 5e18].map(JobMeter.size) == ["0 B", "512 B", "1.5 KiB", "1.0 GiB", "4.3 EiB"])
        #expect([0, 4.2, 59.5, 754, 10800, 1e9].map(JobMeter.time) == ["0:00", "0:05", "1:00", "12:34", "3:00:00", ">1000 h"])
    }
}
