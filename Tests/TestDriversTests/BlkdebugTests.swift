import BlockGraph
import Foundation
import StorageSchema
import StrataBase
import StrataTesting
import Testing
import TestDrivers

@Suite("blkdebug")
struct BlkdebugTests {
    /// A rule, or a list of them, over a raw node, so that the points of guest requests are reached.
    struct Rules: Sendable, CustomTestStringConvertible {
        let testDescription: String
        var options: [String: JSON]
        var io: [String]

        init(_ description: String, _ options: [String: JSON], _ io: [String]) {
            testDescription = description
            self.options = options
            self.io = io
        }
    }

    static let rules: [Rules] = [
        Rules("an event arms a rule for all that follows", ["inject-error": [["event": "read_aio"]]], ["write 0 512", "read 0 512", "write 0 512", "read 0 512"]),
        Rules(
            "the latest event decides", ["inject-error": [["event": "read_aio", "errno": 5], ["event": "write_aio", "errno": 28]]],
            ["write 0 512", "read 0 512", "write 0 512", "read 0 512"]),
        Rules("once is once", ["inject-error": [["event": "read_aio", "once": true]]], ["read 0 512", "read 0 512", "read 0 512"]),
        Rules(
            "the first of two rules decides", ["inject-error": [["event": "none", "errno": 28, "iotype": "write"], ["event": "none", "errno": 5]]],
            ["write 0 512", "read 0 512"]),
        Rules(
            "a new event disarms the rules of the opening",
            ["inject-error": [["event": "none", "errno": 28, "iotype": "write"], ["event": "read_aio", "sector": 100]]],
            ["write 0 512", "read 0 512", "write 0 512", "read 48k 4k"]),
        Rules(
            "states", [
                "inject-error": [["event": "read_aio", "state": 2, "once": true]],
                "set-state": [["event": "write_aio", "state": 1, "new_state": 2], ["event": "read_aio", "state": 2, "new_state": 3]],
            ], ["read 0 512", "write 0 512", "read 0 512", "read 0 512", "write 0 512", "read 0 512"]),
        Rules("a sector", ["inject-error": [["event": "none", "sector": 2]]], ["read 512 512", "read 0 4k", "write 1024 512", "read 1536 512", "read 1535 1"]),
        Rules("sector -1 is every sector", ["inject-error": [["event": "none", "sector": -1]]], ["read 0 512"]),
        Rules("a sector that is none", ["inject-error": [["event": "none", "sector": -5]]], ["read 0 512"]),
        Rules("no error is an error that lets pass", ["inject-error": [["event": "none", "errno": 0], ["event": "none", "errno": 5]]], ["read 0 512"]),
        Rules("a negative error lets pass", ["inject-error": [["event": "none", "errno": -3]]], ["read 0 512"]),
        Rules("immediately", ["inject-error": [["event": "none", "immediately": true, "once": true]]], ["read 0 512", "read 0 512"]),
        Rules("reads", ["inject-error": [["event": "none", "iotype": "read"]]], ["read 0 512", "write 0 512", "write -z 0 4k"]),
        Rules("zeroes", ["inject-error": [["event": "none", "iotype": "write-zeroes"]]], ["read 0 512", "write 0 512", "write -z 0 4k"]),
        Rules("discards", ["inject-error": [["event": "none", "iotype": "discard"]], "discard": "unmap"], ["write 0 512", "discard 0 4k", "write -z 0 4k"]),
        Rules("flushes", ["inject-error": [["event": "none", "iotype": "flush"]]], ["read 0 512", "write 0 512", "write -f 0 512"]),
        Rules("pwritev", ["inject-error": [["event": "pwritev", "once": true]]], ["read 0 512", "write 0 512", "write 0 512", "write -z 0 4k"]),
        Rules("pwritev_done", ["inject-error": [["event": "pwritev_done", "iotype": "write", "once": true]]], ["write 0 512", "write 0 512", "write 0 512"]),
        Rules("pwritev_zero", ["inject-error": [["event": "pwritev_zero", "once": true]]], ["write 0 512", "write -z 0 4k", "write -z 0 4k"]),
        Rules(
            "the beginning of a unit", ["align": 4096, "inject-error": [["event": "pwritev_rmw_head", "iotype": "write", "once": true]]],
            ["write 0 4k", "write 512 512", "write 512 512", "read 0 4k"]),
        Rules(
            "the end of a unit", ["align": 4096, "inject-error": [["event": "pwritev_rmw_tail", "iotype": "write", "once": true]]],
            ["write 0 4k", "write 0 512", "write 0 512", "write 4k 4k"]),
        Rules(
            "after the beginning of a unit", ["align": 4096, "inject-error": [["event": "pwritev_rmw_after_head", "once": true]]],
            ["write 512 7680", "write 512 7680"]),
        Rules(
            "after the end of a unit", ["align": 4096, "inject-error": [["event": "pwritev_rmw_after_tail", "once": true]]], ["write 0 5000", "write 0 5000"]),
        Rules("limits", ["align": 512, "max-transfer": 1024, "opt-write-zero": 1536, "max-write-zero": 3072], ["write -P 7 100 5000", "write -z 0 8k", "read -P 0 0 8k"]),
    ]

    @Test("rules make the same requests fail as in QEMU", arguments: rules)
    func sameFailures(rules: Rules) throws {
        var debug: [String: JSON] = ["driver": "blkdebug", "image": ["driver": "file", "filename": "disk"]]
        let discard = rules.options["discard"]
        for (key, value) in rules.options { debug[key] = value }
        if discard != nil { debug["image"] = ["driver": "file", "filename": "disk", "discard": "unmap"] }
        var top: [String: JSON] = ["driver": "raw", "node-name": "top", "file": .object(debug)]
        top["discard"] = discard
        let session = TwinSession(files: ["disk": [UInt8](repeating: 0x11, count: 1 << 16)], nodes: [.object(top)], io: rules.io, inspected: ["disk"])
        try session.expectSame()
    }

    /// The points of a node without a parent driver: those of the graph's own.
    @Test("a node that is exported itself sees the same points", arguments: ["pwritev", "pwritev_done", "pwritev_zero", "read_aio", "flush_to_disk"])
    func topmost(event: String) throws {
        let session = TwinSession(
            files: ["disk": [UInt8](repeating: 0x11, count: 1 << 16)],
            nodes: [
                [
                    "driver": "blkdebug", "node-name": "top", "image": ["driver": "file", "filename": "disk"],
                    "inject-error": [["event": .string(event), "iotype": "write", "once": true]],
                ]
            ], io: ["read 0 512", "write 0 512", "write -z 0 4k", "write 0 512", "write 0 512"])
        try session.expectSame()
    }

    @Test("files of rules mean the same, and mistakes in them are refused in the same words")
    func configFiles() throws {
        let files: [String: String] = [
            "unknown-event": "[inject-error]\nevent = \"bogus\"\n", "unknown-group": "[foo]\nevent = \"read_aio\"\n",
            "unknown-key": "[inject-error]\nbogus = \"1\"\n", "no-event": "[inject-error]\nerrno = \"5\"\n", "no-new-state": "[set-state]\nevent = \"read_aio\"\n",
            "no-group": "event = \"none\"\n", "no-number": "[inject-error]\nevent = \"read_aio\"\nerrno = \"abc\"\n",
            "unknown-kind": "[inject-error]\nevent = \"none\"\niotype = \"bogus\"\n", "no-flag": "[inject-error]\nevent = \"none\"\nonce = \"maybe\"\n",
            "garbage": "garbage\n", "empty": "", "comments": "# nothing\n\n",
        ]
        for (name, text) in files.sorted(by: { $0.key < $1.key }) {
            let session = TwinSession(
                files: ["disk": [UInt8](repeating: 0, count: 4096), name: Array(text.utf8)],
                nodes: [["driver": "blkdebug", "node-name": "top", "config": .string(name), "image": ["driver": "file", "filename": "disk"]]])
            try session.expectSame(name)
        }
        let rules = "# rules\n\n[inject-error \"first\"]\n  event = \"read_aio\"\n  errno = \"5\"\n  once = \"on\"\n\n[set-state]\nevent = \"write_aio\"\nnew_state = \"7\"\n[inject-error]\nevent = \"read_aio\"\nstate = \"7\"\n"
        // With the ends of lines that Windows writes, too; empty ones of those QEMU does not take.
        for text in [rules, rules.replacing("\n\n", with: "\n").replacing("\n", with: "\r\n")] {
            let session = TwinSession(
                files: ["disk": [UInt8](repeating: 0, count: 4096), "rules": Array(text.utf8)],
                nodes: [["driver": "raw", "node-name": "top", "file": ["driver": "blkdebug", "config": "rules", "image": ["driver": "file", "filename": "disk"]]]],
                io: ["read 0 512", "read 0 512", "write 0 512", "read 0 512"])
            try session.expectSame()
        }
    }

    @Test("limits that contradict each other are refused in the same words")
    func limits() throws {
        let options: [[String: JSON]] = [
            ["align": 3], ["align": 4_294_967_296], ["align": -1], ["align": 0], ["align": 4096, "max-transfer": 1000], ["max-transfer": -1],
            ["max-transfer": 2_147_483_647], ["align": 512, "opt-write-zero": 1000], ["align": 512, "max-write-zero": 100], ["align": 512, "opt-discard": 1000],
            ["align": 512, "max-discard": 1000], ["align": 512, "opt-write-zero": 1024, "max-write-zero": 1536], ["opt-write-zero": 3000], ["config": "nowhere"],
        ]
        for members in options {
            var node: [String: JSON] = ["driver": "blkdebug", "node-name": "top", "image": ["driver": "file", "filename": "disk"]]
            for (key, value) in members { node[key] = value }
            let session = TwinSession(files: ["disk": [UInt8](repeating: 0, count: 8192)], nodes: [.object(node)])
            try session.expectSame("\(members)")
        }
    }

    @Test("permissions that a node takes and refuses to share keep others out")
    func permissions() throws {
        let folder = try TemporaryFolder()
        try folder.write([UInt8](repeating: 0, count: 4096), to: "disk")
        let daemon = try StorageDaemon(.ours, in: folder)
        #expect(try daemon.add(["driver": "file", "node-name": "file", "filename": "disk"]) == nil)
        #expect(try daemon.add(["driver": "blkdebug", "node-name": "keeper", "image": "file", "unshare-child-perms": ["write"], "take-child-perms": ["resize"]]) == nil)
        let refusal = try daemon.add(["driver": "blkdebug", "node-name": "writer", "image": "file", "take-child-perms": ["write"]])
        #expect(refusal?.contains("write") == true && refusal?.contains("keeper") == true, "\(refusal ?? "accepted")")
        let other = try daemon.add(["driver": "blkdebug", "node-name": "fixed", "image": "file", "unshare-child-perms": ["resize"]])
        #expect(other?.contains("resize") == true && other?.contains("keeper") == true, "\(other ?? "accepted")")
        try daemon.quit()
    }

    /// The points that our qcow2 reports, each with a workload in which it is reached.
    static let points = [
        "l1_update", "l1_grow_alloc_table", "l1_grow_write_table", "l1_grow_activate_table", "l2_load", "l2_update", "read_aio", "read_backing_aio",
        "write_aio", "cow_read", "cow_write", "reftable_load", "refblock_load", "refblock_update", "cluster_alloc", "cluster_free", "flush_to_os",
        "flush_to_disk", "pwritev", "pwritev_done",
    ]

    @Test("a failure at any point of qcow2 is reached, reported, and leaves an image without errors", arguments: points)
    func qcow2Points(point: String) throws {
        let folder = try TemporaryFolder()
        try QEMU.img("create", "-q", "-f", "raw", "base", "3M", in: folder)
        try QEMU.io("base", format: "raw", ["write -P 9 0 3M"], in: folder)
        try QEMU.img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "-b", "base", "-F", "raw", "disk", "3M", in: folder)
        try QEMU.io("disk", ["write -P 1 0 300k", "write -P 2 2500k 64k"], in: folder)
        let daemon = try StorageDaemon(.ours, in: folder)
        // The first request after the point fails. A reading client's leave is a flush: where the point is one of reads that must not use the rule up.
        var rule: [String: JSON] = ["event": .string(point), "once": true]
        if point == "read_backing_aio" { rule["iotype"] = "write" }
        try #require(
            try daemon.add([
                "driver": "qcow2", "node-name": "top", "discard": "unmap",
                "backing": ["driver": "raw", "read-only": true, "file": ["driver": "file", "filename": "base", "read-only": true]],
                "file": [
                    "driver": "blkdebug", "inject-error": [.object(rule)], "image": ["driver": "file", "filename": "disk", "discard": "unmap"],
                ],
            ]) == nil)
        try daemon.export("top")
        var failures = 0
        for command in [
            "read -P 1 100k 4k", "read -P 9 1M 4k", "write -P 3 100k 8k", "write -P 4 600k 1000", "write -P 5 1500k 100k", "flush", "discard 2500k 32k", "flush",
            "write -P 6 2000k 3000", "flush", "read 0 3M",
        ] where try daemon.io(command).contains("failed") { failures += 1 }
        // The NBD server may have reported a flush only to a client that was leaving; growing needs no client.
        try daemon.monitor.execute("block-export-del", ["id": "disk"])
        _ = try daemon.monitor.event("BLOCK_EXPORT_DELETED")
        var resized = true
        do { try daemon.monitor.execute("block_resize", ["node-name": "top", "size": 6_442_450_944]) } catch is QMPLineClient.Refusal { resized = false }
        try daemon.quit()
        if !["flush_to_os", "flush_to_disk", "l1_update", "l2_update", "refblock_update", "cluster_free", "reftable_update"].contains(point) {
            #expect(failures > 0 || !resized, "no request failed")
        }
        try QEMU.mustFindClean("disk", in: folder, allowingLeaks: true)
    }
}
