import Foundation
import Testing

@Suite("info, check and measure stay within the limits they are given", .serialized)
struct LimitsTests {
    private func withImage(_ body: (ToolPair) throws -> Void) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare([["create", "-q", "-f", "qcow2", "b.qcow2", "10M"]])
        try body(pair)
    }

    @Test("a command that stays below its limits says what it says without them", arguments: ["info", "info --output=json", "check", "check --output=json", "measure -O qcow2"])
    func enough(command: String) throws {
        try withImage { pair in
            let words = command.split(separator: " ").map(String.init)
            let plain = try pair.runOurs(words + ["b.qcow2"])
            #expect(try pair.runOurs(words + ["--limits-memory", "256M", "--limits-time", "50.5", "b.qcow2"]) == plain)
            #expect(plain.status == 0)
        }
    }

    @Test("the exit status goes through: damage, and what is no image")
    func statuses() throws {
        try withImage { pair in
            let limits = ["--limits-memory=256M", "--limits-time=50"]
            let file = try FileHandle(forUpdating: pair.ours.appendingPathComponent("b.qcow2"))
            // A leak: the reference count of a cluster that nothing uses.
            try file.seek(toOffset: 2 * 65536 + 2 * 10)
            try file.write(contentsOf: Data([0, 1]))
            try file.truncate(atOffset: 11 * 65536)
            try file.close()
            #expect(try pair.runOurs(["check"] + limits + ["b.qcow2"]).status == 3)
            #expect(try pair.runOurs(["check"] + limits + ["nosuch"]).status == 1)
            #expect(try pair.runOurs(["check", "-f", "raw"] + limits + ["b.qcow2"]).status == 63)
        }
    }

    @Test("what needs more memory gives up with one sentence")
    func memory() throws {
        try withImage { pair in
            // Its first table takes 32 MiB.
            let made = try ToolPair.run(ToolPair.qemu, ["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "wide.qcow2", "127G"], in: pair.ours)
            #expect(made.status == 0)
            for command in ["info", "check", "measure"] {
                let outcome = try pair.runOurs([command, "--limits-memory", "32M", "wide.qcow2"])
                #expect(outcome == .init(status: 1, output: "", errors: "qemu-img: Gave up: it needed more memory than 33554432 bytes (--limits-memory)\n"))
            }
        }
    }

    @Test("what a command with limits has to say comes through, however long it is")
    func messages() throws {
        try withImage { pair in
            let limits = ["--limits-memory=256M"]
            #expect(try pair.runOurs(["info"] + limits + ["nosuch"]) == pair.runOurs(["info", "nosuch"]))
            // Longer than what is passed on at once, and it speaks of what a crash speaks of.
            let name = "Fatal error/" + String(repeating: "x/", count: 10_000)
            let outcome = try pair.runOurs(["info"] + limits + [name])
            let plain = try pair.runOurs(["info", name])
            #expect(outcome.status == 1 && plain.errors.hasPrefix(outcome.errors.prefix(8000)), "\(outcome)")
        }
    }

    @Test("what takes longer gives up in time", arguments: ["info", "check", "measure"])
    func time(command: String) throws {
        try withImage { pair in
            // A file that takes half an hour to read.
            let slow = ["--object", "throttle-group,id=t,x-bps-total=2000", "--image-opts", "driver=qcow2,file.driver=throttle,file.throttle-group=t,file.file.driver=file,file.file.filename=b.qcow2"]
            let start = ContinuousClock.now
            let outcome = try pair.runOurs([command, "--limits-time", "0.5"] + slow)
            #expect(ContinuousClock.now - start < .seconds(20))
            #expect(outcome == .init(status: 1, output: "", errors: "qemu-img: Gave up: it took longer than 0.5 seconds (--limits-time)\n"))
        }
    }

    @Test("limits that make no sense are refused, and a repair takes none", arguments: [
        ("info --limits-memory 1M b.qcow2", "Invalid memory limit specified. Must be between 16777216 and 9223372036854775807."),
        ("info --limits-memory x b.qcow2", "Invalid memory limit specified: 'x'."),
        ("measure --limits-time 0 b.qcow2", "Invalid time limit specified: '0'. Must be a number of seconds up to 1000000000."),
        ("measure --limits-time nan b.qcow2", "Invalid time limit specified: 'nan'. Must be a number of seconds up to 1000000000."),
        ("check -r all --limits-time 5 b.qcow2", "--limits-memory and --limits-time cannot be used with --repair, which has to come to its end"),
    ])
    func refusals(command: String, message: String) throws {
        try withImage { pair in
            let outcome = try pair.runOurs(command.split(separator: " ").map(String.init))
            #expect(outcome == .init(status: 1, output: "", errors: "qemu-img: \(message)\n"))
        }
    }
}
