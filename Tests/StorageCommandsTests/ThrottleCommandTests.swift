import BlockGraph
import IOCore
import QAPIRuntime
import StorageCommands
import StrataBase
import Testing

@Suite("throttle groups over QMP")
struct ThrottleCommandTests {
    private typealias Command = Conversation.Command

    private static func add(_ id: String, _ more: JSONValue = [:]) -> Command {
        var object = more.object ?? JSONObject()
        object["qom-type"] = "throttle-group"
        object["id"] = .string(id)
        return Command("object-add", .object(object))
    }

    private static func get(_ property: String) -> Command { Command("qom-get", ["path": "g0", "property": .string(property)]) }

    private static func set(_ property: String, _ value: JSONValue) -> Command {
        Command("qom-set", ["path": "g0", "property": .string(property), "value": value])
    }

    @Test("limits are given, refused and shown as by qemu-storage-daemon")
    func making() async throws {
        let refused: [JSONValue] = [
            ["limits": ["iops-total": 10, "iops-read": 10]], ["limits": ["iops-total": -1]], ["limits": ["iops-total-max": 5]],
            ["limits": ["iops-total": 10, "iops-total-max": 5]], ["limits": ["iops-size": 512]], ["limits": ["nope": 1]],
            ["limits": ["bps-total": 1_000_000_000_000_001]], ["limits": ["iops-total": 10, "iops-total-max": 20, "iops-total-max-length": 0]],
            ["limits": ["iops-total-max-length": 5]], ["limits": ["bps-write": 5, "bps-total-max": 6]], ["limits": 5], ["x-iops-total": -1],
            ["x-iops-total": "many"], ["x-nope": 1], ["x-iops-total": 5, "x-iops-write": 6],
        ]
        var commands = refused.enumerated().map { Self.add("r\($0)", $1) }
        commands += [
            Self.add("g0", ["limits": ["iops-total": 10], "x-iops-total": 20, "x-iops-size": 4096, "x-bps-read": 7]), Self.get("limits"),
            Self.add("g0"), Command("qom-list", ["path": "g0"]), Command("qom-list-properties", ["typename": "throttle-group"]),
            Command("qom-list-types", ["implements": "throttle-group"]),
        ]
        commands += ["x-iops-total", "x-iops-total-max", "x-iops-total-max-length", "x-iops-size", "x-bps-read", "x-bps-read-max", "type", "nope"].map(Self.get)
        try await Conversation.compare(commands)
    }

    @Test("limits change while the daemon runs, all or none, as in qemu-storage-daemon")
    func changing() async throws {
        try await Conversation.compare([
            Self.add("g0"), Self.get("limits"), Self.set("limits", ["iops-total": 100]), Self.get("limits"), Self.set("x-iops-total", 50), Self.get("x-iops-total"),
            Self.set("x-iops-total", -1), Self.set("limits", ["iops-total-max": 200, "iops-total-max-length": 3]), Self.get("limits"),
            Self.set("limits", ["iops-total": 0]), Self.get("limits"), Self.set("limits", ["iops-total": 0, "iops-total-max": 0, "iops-total-max-length": 1]),
            Self.get("limits"), Self.set("limits", ["bps-total": 5, "bps-read": 6]), Self.get("limits"), Self.set("limits", ["bogus": 5]), Self.set("limits", 5),
            Command("blockdev-add", ["driver": "null-co", "node-name": "n", "size": 1_048_576]),
            Command("blockdev-add", ["driver": "throttle", "node-name": "t", "file": "n", "throttle-group": "g0"]),
            Command("blockdev-add", ["driver": "throttle", "node-name": "t2", "file": "n", "throttle-group": "nope"]),
            Command("blockdev-add", ["driver": "throttle", "node-name": "t2", "file": "n"]),
            Self.set("limits", ["bps-write": 4096]), Self.get("limits"), Command("blockdev-del", ["node-name": "t"]),
            Command("object-del", ["id": "g0"]), Self.get("limits"),
        ])
    }

    /// One client's writes of 512 bytes, one after the other.
    private static func write(_ count: Int, _ backend: BlockBackend) async throws -> Duration {
        let buffer = IOBuffer(zeroed: 512)
        defer { withExtendedLifetime(buffer) {} }
        return try await ContinuousClock().measure {
            for index in 0..<count { try await backend.write(buffer.vector, at: GuestOffset(index * 512)) }
        }
    }

    @Test("a client is as slow as the limits of the moment say, and as fast")
    func rate() async throws {
        let fixture = try ServiceFixture()
        #expect(await fixture.failure("object-add", ["qom-type": "throttle-group", "id": "g", "limits": ["iops-total": 200]]) == nil)
        #expect(await fixture.failure("blockdev-add", ["driver": "null-co", "node-name": "n", "size": 1_048_576]) == nil)
        #expect(await fixture.failure("blockdev-add", ["driver": "throttle", "node-name": "t", "file": "n", "throttle-group": "g"]) == nil)
        let graph = fixture.service.graph
        let times = try await Task(executorPreference: fixture.context) { () async throws -> [Duration] in
            let backend = try await graph.makeBackend(named: "client", on: "t", PermissionGrant(used: [.consistentRead, .write], shared: .all))
            var times = [try await Self.write(100, backend)]
            for limits: JSONValue in [["iops-total": 400], ["iops-total": 0, "bps-write": 51_200], ["bps-write": 0]] {
                #expect(await fixture.failure("qom-set", ["path": "g", "property": "limits", "value": limits]) == nil)
                times.append(try await Self.write(100, backend))
            }
            await graph.release(backend)
            return times
        }.value
        // What a tenth of a second may bring at once is 20, 40 and 10 requests; a machine that is busy takes any time longer.
        #expect(times[0] >= .milliseconds(390) && times[0] < .seconds(20), "\(times)")
        #expect(times[1] >= .milliseconds(140) && times[1] < .seconds(20), "\(times)")
        #expect(times[2] >= .milliseconds(880) && times[2] < .seconds(20), "\(times)")
        // No limit: nothing but the machine.
        #expect(times[3] < times[2], "\(times)")
        try await fixture.stop()
    }
}
