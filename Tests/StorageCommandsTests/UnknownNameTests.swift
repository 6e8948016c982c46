import Foundation
import QAPIRuntime
import StorageSchema
import Testing

/// Every command that takes the name of a node, an export, a job, an object or a character device, with one that nobody has: class and sentence are
/// what a client goes by.
@Suite("unknown names against qemu-storage-daemon")
struct UnknownNameTests {
    private typealias Command = Conversation.Command

    private static let setUp = [
        Command("blockdev-add", ["driver": "null-co", "node-name": "n0", "size": 1_048_576]),
        Command("chardev-add", ["id": "nul", "backend": ["type": "null", "data": [:]]]), Command("object-add", ["qom-type": "iothread", "id": "io0"]),
    ]

    private static let commands = [
        Command("block-commit", ["device": "nope"]), Command("block-dirty-bitmap-add", ["node": "nope", "name": "b"]),
        Command("block-dirty-bitmap-clear", ["node": "nope", "name": "b"]), Command("block-dirty-bitmap-clear", ["node": "n0", "name": "nope"]),
        Command("block-dirty-bitmap-disable", ["node": "nope", "name": "b"]), Command("block-dirty-bitmap-disable", ["node": "n0", "name": "nope"]),
        Command("block-dirty-bitmap-enable", ["node": "nope", "name": "b"]), Command("block-dirty-bitmap-enable", ["node": "n0", "name": "nope"]),
        Command("block-dirty-bitmap-merge", ["node": "nope", "target": "b", "bitmaps": ["c"]]),
        Command("block-dirty-bitmap-merge", ["node": "n0", "target": "nope", "bitmaps": ["c"]]),
        Command("block-dirty-bitmap-remove", ["node": "nope", "name": "b"]), Command("block-dirty-bitmap-remove", ["node": "n0", "name": "nope"]),
        Command("x-debug-block-dirty-bitmap-sha256", ["node": "nope", "name": "b"]),
        Command("x-debug-block-dirty-bitmap-sha256", ["node": "n0", "name": "nope"]),
        Command("block-export-add", ["type": "nbd", "id": "e", "node-name": "nope"]),
        Command("block-export-add", ["type": "nbd", "id": "e", "node-name": "n0", "iothread": "nope"]), Command("block-export-del", ["id": "nope"]),
        Command("nbd-server-add", ["device": "nope"]), Command("nbd-server-remove", ["name": "nope"]),
        Command("block-job-cancel", ["device": "nope"]), Command("block-job-change", ["id": "nope", "type": "mirror", "copy-mode": "background"]),
        Command("block-job-complete", ["device": "nope"]), Command("block-job-dismiss", ["id": "nope"]), Command("block-job-finalize", ["id": "nope"]),
        Command("block-job-pause", ["device": "nope"]), Command("block-job-resume", ["device": "nope"]),
        Command("block-job-set-speed", ["device": "nope", "speed": 0]), Command("job-cancel", ["id": "nope"]), Command("job-complete", ["id": "nope"]),
        Command("job-dismiss", ["id": "nope"]), Command("job-finalize", ["id": "nope"]), Command("job-pause", ["id": "nope"]),
        Command("job-resume", ["id": "nope"]), Command("block-set-write-threshold", ["node-name": "nope", "write-threshold": 1]),
        Command("block-stream", ["device": "nope"]), Command("block-stream", ["job-id": "j", "device": "n0", "base": "nope"]),
        Command("block-stream", ["job-id": "j", "device": "n0", "base-node": "nope"]), Command("block_resize", ["device": "nope", "size": 1]),
        Command("block_resize", ["node-name": "nope", "size": 1]), Command("block_resize", ["size": 1]),
        Command("blockdev-add", ["driver": "raw", "node-name": "r", "file": "nope"]),
        Command("blockdev-add", ["driver": "nbd", "node-name": "r", "server": ["type": "unix", "path": "/nowhere"], "tls-creds": "nope"]),
        Command("blockdev-add", ["driver": "nbd", "node-name": "r", "server": ["type": "unix", "path": "/nowhere"], "tls-creds": "io0"]),
        Command("blockdev-add", ["driver": "throttle", "node-name": "r", "file": "n0", "throttle-group": "nope"]),
        Command("blockdev-backup", ["device": "nope", "target": "n0", "sync": "full"]),
        Command("blockdev-backup", ["device": "n0", "target": "nope", "sync": "full"]), Command("blockdev-del", ["node-name": "nope"]),
        Command("blockdev-mirror", ["job-id": "j", "device": "nope", "target": "n0", "sync": "full"]),
        Command("blockdev-mirror", ["job-id": "j", "device": "n0", "target": "nope", "sync": "full"]),
        Command("blockdev-reopen", ["options": [["driver": "null-co", "node-name": "nope"]]]),
        Command("blockdev-set-active", ["node-name": "nope", "active": true]), Command("blockdev-snapshot", ["node": "nope", "overlay": "n0"]),
        Command("blockdev-snapshot", ["node": "n0", "overlay": "nope"]),
        Command("blockdev-snapshot-delete-internal-sync", ["device": "nope", "name": "s"]),
        Command("blockdev-snapshot-internal-sync", ["device": "nope", "name": "s"]),
        Command("blockdev-snapshot-sync", ["device": "nope", "snapshot-file": "/nowhere/s"]),
        Command("blockdev-snapshot-sync", ["node-name": "nope", "snapshot-file": "/nowhere/s"]),
        Command("change-backing-file", ["device": "nope", "image-node-name": "n0", "backing-file": "x"]),
        Command("change-backing-file", ["device": "n0", "image-node-name": "nope", "backing-file": "x"]),
        Command("chardev-add", ["id": "d", "backend": ["type": "socket", "data": ["addr": ["type": "inet", "data": ["host": "localhost", "port": "0"]], "tls-creds": "nope"]]]),
        Command("chardev-add", ["id": "d", "backend": ["type": "socket", "data": ["addr": ["type": "inet", "data": ["host": "localhost", "port": "0"]], "tls-creds": "io0"]]]),
        Command("chardev-change", ["id": "nope", "backend": ["type": "null", "data": [:]]]), Command("chardev-remove", ["id": "nope"]),
        Command("chardev-send-break", ["id": "nope"]), Command("ringbuf-read", ["device": "nope", "size": 1]),
        Command("ringbuf-read", ["device": "nul", "size": 1]), Command("ringbuf-write", ["device": "nope", "data": "x"]),
        Command("drive-backup", ["device": "nope", "target": "/nowhere/x", "sync": "full"]),
        Command("drive-mirror", ["device": "nope", "target": "/nowhere/x", "sync": "full"]),
        Command("object-del", ["id": "nope"]), Command("object-add", ["qom-type": "nope", "id": "a"]),
        Command("qom-get", ["path": "/objects/nope", "property": "x"]), Command("qom-get", ["path": "nope", "property": "x"]),
        Command("qom-get", ["path": "/objects/io0", "property": "nope"]), Command("qom-set", ["path": "/objects/nope", "property": "x", "value": 1]),
        Command("qom-set", ["path": "/objects/io0", "property": "nope", "value": 1]), Command("qom-list", ["path": "nope"]),
        Command("qom-list-properties", ["typename": "nope"]), Command("x-blockdev-amend", ["job-id": "j", "node-name": "nope", "options": ["driver": "qcow2"]]),
        Command("x-blockdev-change", ["parent": "nope"]), Command("x-blockdev-change", ["parent": "n0", "child": "nope"]),
        Command("x-blockdev-change", ["parent": "n0", "node": "nope"]), Command("x-blockdev-set-iothread", ["node-name": "nope", "iothread": "io0"]),
        Command("x-blockdev-set-iothread", ["node-name": "n0", "iothread": "nope"]), Command("nbd-server-stop"),
        Command("transaction", ["actions": [["type": "block-dirty-bitmap-add", "data": ["node": "nope", "name": "b"]]]]),
        Command("transaction", ["actions": [["type": "blockdev-snapshot", "data": ["node": "nope", "overlay": "n0"]]]]),
    ]

    @Test("class and sentence of the refusal are QEMU's")
    func refusals() async throws {
        // What is not there yet is listed in Tests/StorageSchemaTests/not-yet-implemented.txt; nothing else is passed over.
        let ours = Set(StorageSchemaTable.commandNames)
        let scratch = try Scratch()
        let servers = ["nope", "io0"].map { credentials in
            Command("nbd-server-start", ["addr": ["type": "unix", "data": ["path": .string(scratch.file("s"))]], "tls-creds": .string(credentials)])
        }
        try await Conversation.compare(Self.setUp + Self.commands.filter { ours.contains($0.name) } + servers)
    }

    @Test("every command that takes a name of something is among them")
    func completeness() {
        let tried = Set((Self.setUp + Self.commands).map(\.name)).union(["nbd-server-start"])
        let without: Set = [
            "add-fd", "remove-fd", "query-fdsets", "block-latency-histogram-set", "blockdev-create", "human-monitor-command", "qmp_capabilities", "qom-list-types", "quit",
            "trace-event-get-state", "trace-event-set-state",
        ]
        for name in StorageSchemaTable.commandNames where !name.hasPrefix("query-") && !name.hasPrefix("x-debug-query") && !without.contains(name) {
            #expect(tried.contains(name), "\(name) was not asked for something that is not there")
        }
    }
}

/// The kernel takes a name up to its first zero byte.
@Suite("names with a zero byte in them")
struct CutOffNameTests {
    private typealias Command = Conversation.Command

    @Test("no file is opened in the place of one whose name goes on behind a zero byte")
    func opening() async throws {
        let scratch = try Scratch()
        let disk = scratch.file("disk")
        try Data("[inject-error]\nevent = \"none\"\n".utf8).write(to: URL(fileURLWithPath: disk))
        let name = JSONValue.string(disk + "\0x")
        try await Conversation.compare([
            Command("blockdev-add", ["driver": "file", "node-name": "n", "filename": name]),
            Command("blockdev-add", ["driver": "blkdebug", "node-name": "d", "config": name, "image": ["driver": "null-co"]]),
            Command("query-named-block-nodes", ["flat": true]),
        ])
    }

    @Test("nothing is made or emptied in its place either")
    func making() async throws {
        let scratch = try Scratch()
        let disk = scratch.file("disk")
        try Data([1, 2, 3]).write(to: URL(fileURLWithPath: disk))
        let (name, absent) = (JSONValue.string(disk + "\0x"), JSONValue.string(scratch.file("absent") + "\0x"))
        let answers = try await Conversation.askOurs([
            Command("chardev-add", ["id": "f", "backend": ["type": "file", "data": ["out": name]]]),
            Command("chardev-add", ["id": "l", "backend": ["type": "null", "data": ["logfile": name]]]),
            Command("chardev-add", ["id": "p", "backend": ["type": "pty", "data": ["path": absent]]]),
            Command("chardev-add", ["id": "s", "backend": ["type": "socket", "data": ["addr": ["type": "unix", "data": ["path": absent]], "wait": false]]]),
            Command("nbd-server-start", ["addr": ["type": "unix", "data": ["path": absent]]]),
            Command("object-add", ["qom-type": "secret", "id": "s", "file": name]),
        ])
        for answer in answers { #expect(answer["error"]?["desc"]?.string?.contains("No such file or directory") == true, "\(answer)") }
        #expect(try Data(contentsOf: URL(fileURLWithPath: disk)) == Data([1, 2, 3]))
        #expect(!FileManager.default.fileExists(atPath: scratch.file("absent")))
    }
}

/// Exports by the older commands.
@Suite("nbd-server-add against qemu-storage-daemon")
struct OlderExportCommandTests {
    private typealias Command = Conversation.Command

    @Test("exports are made and removed alike")
    func exports() async throws {
        let scratch = try Scratch()
        func null(_ name: String, readOnly: Bool) -> Command {
            Command("blockdev-add", ["driver": "null-co", "node-name": .string(name), "size": 65536, "read-only": .bool(readOnly)])
        }
        try await Conversation.compare([
            null("n0", readOnly: true), null("n1", readOnly: false), Command("nbd-server-add", ["device": "n0"]), Command("nbd-server-add", ["device": "nope"]),
            Command("nbd-server-start", ["addr": ["type": "unix", "data": ["path": .string(scratch.file("s"))]]]), Command("nbd-server-add", ["device": "n0"]),
                Command("nbd-server-add", ["device": "n0"]), Command("nbd-server-add", ["device": "n0", "writable": true]),
            Command("nbd-server-add", ["device": "n0", "name": "w", "writable": true]), Command("query-block-exports"),
            Command("nbd-server-add", ["device": "n1", "name": "a/b", "writable": true]), Command("nbd-server-add", ["device": "n1", "name": ""]),
            Command("nbd-server-add", ["name": "x"]), Command("nbd-server-remove", ["name": "n0", "mode": "safe"]), Command("nbd-server-remove", ["name": "n0"]),
            Command("nbd-server-remove", ["name": "w", "mode": "hard"]), Command("block-export-add", ["type": "nbd", "id": "e", "node-name": "n1", "name": "other"]),
            Command("nbd-server-remove", ["name": "other"]), Command("nbd-server-remove", ["name": "e"]), Command("query-block-exports"),
        ])
    }
}

/// What a policy leaves of the description of the interface.
@Suite("introspection under a policy")
struct TrimmedIntrospectionTests {
    private static func schema(_ change: (inout CompatPolicy) -> Void) async throws -> [JSONValue] {
        var policy = CompatPolicy()
        change(&policy)
        let fixture = try ServiceFixture()
        let entry = try #require(StorageSchemaTable.commands(fixture.service).first { $0.name == "query-qmp-schema" })
        let answer = try #require(try await entry.run(JSONObject(), policy: policy).array)
        try await fixture.stop()
        return answer
    }

    private static func has(_ feature: JSONValue, _ described: JSONValue) -> Bool { described["features"]?.array?.contains(feature) == true }

    private static func name(_ described: JSONValue) -> String { described["name"]?.string ?? "" }

    @Test("hidden commands, events and members are gone, and nothing else is", arguments: ["deprecated", "unstable"])
    func trimmed(feature: String) async throws {
        let feature = JSONValue.string(feature)
        let whole = try await Self.schema { _ in }
        let trimmed = try await Self.schema {
            if feature == "deprecated" { $0.deprecatedOutput = .hide } else { $0.unstableOutput = .hide }
        }
        let gone = whole.filter { Self.has(feature, $0) && ["command", "event"].contains($0["meta-type"]) }
        #expect(!gone.isEmpty && Set(whole.map(Self.name)).subtracting(trimmed.map(Self.name)) == Set(gone.map(Self.name)))
        let kept = Dictionary(trimmed.map { (Self.name($0), $0) }, uniquingKeysWith: { first, _ in first })
        var hiddenCount = 0
        for entity in whole {
            guard let left = kept[Self.name(entity)] else { continue }
            guard let members = entity["members"]?.array, entity["meta-type"] == "object" else {
                #expect(left == entity)
                continue
            }
            hiddenCount += members.count { Self.has(feature, $0) }
            #expect(left["members"] == .array(members.filter { !Self.has(feature, $0) }))
        }
        #expect(hiddenCount > 0)
        // What a policy rejects without hiding is described.
        #expect(try await Self.schema { $0.deprecatedInput = .reject } == whole)
    }
}
