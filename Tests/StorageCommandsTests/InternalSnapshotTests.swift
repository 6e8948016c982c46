import Foundation
import QAPIRuntime
import Testing

@Suite("internal snapshots by command")
struct InternalSnapshotTests {
    private typealias Command = Conversation.Command

    @Test("making, refusing and deleting them is answered as QEMU answers")
    func conversation() async throws {
        let scratch = try Scratch()
        let (image, base, top) = (scratch.file("a.qcow2"), scratch.file("base.qcow2"), scratch.file("top.qcow2"))
        try run("qemu-img", ["create", "-q", "-f", "qcow2", image, "1M"])
        try run("qemu-img", ["snapshot", "-c", "old", image])
        try run("qemu-img", ["create", "-q", "-f", "qcow2", base, "1M"])
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", top])
        func create(_ device: String, _ name: String) -> Command {
            Command("blockdev-snapshot-internal-sync", ["device": .string(device), "name": .string(name)])
        }
        func delete(_ arguments: JSONValue) -> Command { Command("blockdev-snapshot-delete-internal-sync", arguments) }
        let commands = [
            Command("blockdev-add", ["driver": "file", "node-name": "f", "filename": .string(image)]),
            Command("blockdev-add", ["driver": "qcow2", "node-name": "n", "file": "f"]),
            Command("blockdev-add", ["driver": "qcow2", "node-name": "base", "file": ["driver": "file", "filename": .string(base)]]),
            Command("blockdev-add", ["driver": "qcow2", "node-name": "top", "file": ["driver": "file", "filename": .string(top)], "backing": "base"]),
            Command("blockdev-add", ["driver": "null-co", "node-name": "null", "size": 65536]),
            Command("blockdev-add", ["driver": "null-co", "node-name": "ro", "size": 65536, "read-only": true]),
            create("n", "s1"), create("n", "s1"), create("n", ""), create("absent", "s"), create("f", "s"), create("base", "s"), create("top", "s"),
            create("null", "s"), create("ro", "s"),
            delete(["device": "n"]), delete(["device": "n", "name": "zz"]), delete(["device": "n", "id": "7"]),
            delete(["device": "n", "id": "1", "name": "zz"]), delete(["device": "f", "name": "s1"]), delete(["device": "absent", "name": "s1"]),
            delete(["device": "null", "name": "s1"]), delete(["device": "n", "id": "2", "name": "s1"]), delete(["device": "n", "name": "s1"]),
            delete(["device": "top", "name": "s"]),
        ]
        let expected = try Conversation.askQEMU(commands).map(Self.withoutTimes)
        try run("qemu-img", ["check", image])
        let answers = try await Conversation.askOurs(commands).map(Self.withoutTimes)
        for (command, (ours, theirs)) in zip(commands, zip(answers, expected)) { #expect(ours == theirs, "\(command.name) \(command.arguments)") }
        for path in [image, top] { try run("qemu-img", ["check", path]) }
        #expect(try run("qemu-img", ["snapshot", "-l", image]).contains("old"))
    }

    /// When a snapshot was taken is another moment each time; and QEMU's daemon, which has no guest, gives the time of day as the guest's running time.
    private static func withoutTimes(_ value: JSONValue) -> JSONValue {
        guard case .object(let object) = value else { return value }
        var result = JSONObject()
        for member in object.members.sorted(by: { $0.key < $1.key }) where !member.key.hasPrefix("date-") && !member.key.hasPrefix("vm-clock-") {
            result[member.key] = object[member.key].map(withoutTimes)
        }
        return .object(result)
    }
}
