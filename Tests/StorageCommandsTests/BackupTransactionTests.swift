import Foundation
import QAPIRuntime
import StrataBase
import Testing

/// Backups as parts of transactions: in force together, or without a trace.
@Suite("transactions with backups")
struct BackupTransactionTests {
    private let scratch: Scratch
    private let fixture: ServiceFixture

    init() async throws {
        scratch = try Scratch()
        fixture = try ServiceFixture()
        for name in ["a", "b", "ta", "tb"] {
            try run("qemu-img", ["create", "-q", "-f", "qcow2", scratch.file(name), "1M"])
            if name.count == 1 { try run("qemu-io", ["-c", "write -P 5 0 300k", scratch.file(name)]) }
            let node: JSONValue = ["driver": "qcow2", "node-name": .string(name), "file": ["driver": "file", "filename": .string(scratch.file(name))]]
            #expect(await fixture.failure("blockdev-add", node) == nil)
        }
        #expect(await fixture.failure("block-dirty-bitmap-add", ["node": "a", "name": "kept"]) == nil)
    }

    private func backup(_ id: String, _ more: JSONValue, type: String = "blockdev-backup") -> JSONValue {
        var data = JSONObject()
        data["job-id"] = .string(id)
        data["sync"] = "full"
        for (key, value) in more.object?.members.map({ ($0.key, $0.value) }) ?? [] { data[key] = value }
        return ["type": .string(type), "data": .object(data)]
    }

    private var actions: [JSONValue] {
        [
            ["type": "block-dirty-bitmap-add", "data": ["node": "b", "name": "new"]],
            backup("first", ["device": "a", "target": "ta", "bitmap": "kept", "bitmap-mode": "always"]),
            backup("second", ["device": "b", "target": .string(scratch.file("made")), "filter-node-name": "f"], type: "drive-backup"),
            [
                "type": "blockdev-snapshot-sync",
                "data": ["node-name": "ta", "snapshot-file": .string(scratch.file("overlay")), "snapshot-node-name": "overlay"],
            ],
            ["type": "block-dirty-bitmap-clear", "data": ["node": "b", "name": "new"]],
        ]
    }

    /// Everything that users can see of nodes, bitmaps and jobs.
    private func shape() async -> String {
        var text = ""
        for query in ["query-named-block-nodes", "query-jobs", "query-block-jobs"] { text += await fixture.execute(query)["return"]?.text() ?? "?" }
        return text.replacing(#/"id":\d+|#block\d+/#, with: "")
    }

    @Test("whatever fails at whatever position, nothing is left: no job, filter, bitmap, overlay or file")
    func rollback() async throws {
        let before = await shape()
        let failing: [(JSONValue, String)] = [
            (["type": "abort", "data": [:]], "Transaction aborted using Abort action"),
            (backup("late", ["device": "a", "target": "a"]), "Source and target cannot be the same"),
            (backup("late", ["device": "tb", "target": .string(scratch.file("third")), "format": "nope"], type: "drive-backup"), "Unknown file format 'nope'"),
            (
                backup("late", ["device": "tb", "target": .string(scratch.file("third")), "speed": -1], type: "drive-backup"),
                "Parameter 'speed' expects a non-negative value"
            ),
            (["type": "block-dirty-bitmap-remove", "data": ["node": "b", "name": "none"]], "Dirty bitmap 'none' not found"),
        ]
        // The snapshot of a backup's target is refused, so it has no part in this.
        let actions = actions.enumerated().filter { $0.offset != 3 }.map(\.element)
        for (action, message) in failing {
            for position in 0...actions.count {
                var all = actions
                all.insert(action, at: position)
                #expect(await fixture.failure("transaction", ["actions": .array(all)]) == message, "at \(position)")
                #expect(await shape() == before, "\(message) at \(position)")
                for name in ["made", "third", "overlay"] { #expect(!FileManager.default.fileExists(atPath: scratch.file(name)), "\(message) at \(position)") }
            }
        }
        #expect(await fixture.failure("transaction", ["actions": .array(self.actions)])?.hasPrefix("Node 'ta' is busy") == true)
        #expect(await shape() == before)
        // The same without the failure goes through, and the jobs' images are the disks.
        #expect(await fixture.failure("transaction", ["actions": .array(actions)]) == nil)
        for _ in 0..<2 { #expect(await fixture.event("BLOCK_JOB_COMPLETED")["error"] == nil) }
        try await fixture.stop()
        try run("qemu-img", ["compare", scratch.file("a"), scratch.file("ta")])
        try run("qemu-img", ["compare", scratch.file("b"), scratch.file("made")])
        for name in ["a", "b", "ta", "made"] { try run("qemu-img", ["check", "-q", scratch.file(name)]) }
    }

    @Test("jobs of a grouped transaction wait for each other, and one that is cancelled takes the other with it", arguments: [false, true])
    func grouped(cancels: Bool) async throws {
        let members = [backup("quick", ["device": "a", "target": "ta"]), backup("slow", ["device": "b", "target": "tb", "sync": "none"])]
        let actions: [JSONValue] = cancels ? members : [members[0], backup("slow", ["device": "b", "target": "tb", "auto-finalize": false])]
        let arguments: JSONValue = ["actions": .array(actions), "properties": ["completion-mode": "grouped"]]
        #expect(await fixture.failure("transaction", arguments) == nil)
        if cancels {
            while await fixture.event("JOB_STATUS_CHANGE") != ["id": "quick", "status": "waiting"] {}
            #expect(await fixture.failure("job-cancel", ["id": "slow"]) == nil)
            for _ in 0..<2 { _ = await fixture.event("BLOCK_JOB_CANCELLED") }
        } else {
            #expect(await fixture.event("BLOCK_JOB_PENDING")["id"] == "slow")
            #expect(await fixture.failure("job-finalize", ["id": "quick"]) == nil)
            for _ in 0..<2 { #expect(await fixture.event("BLOCK_JOB_COMPLETED")["error"] == nil) }
        }
        try await fixture.stop()
    }

    @Test("an action that starts no job cannot be part of a group")
    func notGrouped() async throws {
        let before = await shape()
        for action in [actions[0], actions[3]] {
            let arguments: JSONValue = ["actions": [actions[1], action], "properties": ["completion-mode": "grouped"]]
            let type = action["type"]?.string ?? ""
            #expect(
                await fixture.failure("transaction", arguments)
                    == "Action '\(type)' does not support transaction property completion-mode = grouped")
        }
        #expect(await shape() == before)
        try await fixture.stop()
    }
}
