import Foundation
import QAPIRuntime
import Testing

/// The same conversation with QEMU's storage daemon and with ours: what clients take apart must be the same.
@Suite("commands against qemu-storage-daemon")
struct AgainstQEMUTests {
    private typealias Command = Conversation.Command

    @Test("nodes are described alike")
    func nodes() async throws {
        let scratch = try Scratch()
        let raw = scratch.disk("disk.img", byteCount: 1 << 20)
        let (base, top) = (scratch.file("base.qcow2"), scratch.file("top.qcow2"))
        try run("qemu-img", ["create", "-q", "-f", "qcow2", base, "2M"])
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", top])
        try await Conversation.compare([
            Command("blockdev-add", ["driver": "file", "node-name": "file", "filename": .string(raw)]),
            Command("blockdev-add", ["driver": "raw", "node-name": "raw", "file": "file", "read-only": true]),
            Command("query-named-block-nodes"),
            Command("blockdev-add", ["driver": "null-co", "node-name": "null"]),
            Command("blockdev-add", ["driver": "null-co", "node-name": "sized", "size": 4096, "cache": ["direct": true, "no-flush": true], "detect-zeroes": "on"]),
            Command("query-named-block-nodes", ["flat": true]),
            Command("blockdev-del", ["node-name": "null"]),
            Command("blockdev-del", ["node-name": "sized"]),
            Command("blockdev-add", ["driver": "qcow2", "node-name": "top", "file": ["driver": "file", "filename": .string(top)]]),
            Command("query-named-block-nodes"),
            Command("query-named-block-nodes", ["flat": true]),
            Command("blockdev-del", ["node-name": "top"]),
            Command("query-named-block-nodes"),
        ])
    }

    @Test("several windows of one file can be written to at a time")
    func windows() async throws {
        let scratch = try Scratch()
        let raw: JSONValue = .string(scratch.disk("disk.img", byteCount: 1 << 20))
        let address: JSONValue = ["type": "unix", "data": ["path": .string(scratch.file("nbd.sock"))]]
        try await Conversation.compare([
            Command("nbd-server-start", ["addr": address]),
            Command("blockdev-add", ["driver": "file", "node-name": "file", "filename": raw]),
            Command("blockdev-add", ["driver": "raw", "node-name": "first", "file": "file", "size": 65536]),
            Command("blockdev-add", ["driver": "raw", "node-name": "second", "file": "file", "offset": 65536, "size": 131_072]),
            Command("blockdev-add", ["driver": "raw", "node-name": "rest", "file": "file", "offset": 196_608]),
            Command("block-export-add", ["type": "nbd", "id": "a", "node-name": "first", "name": "first", "writable": true]),
            Command("block-export-add", ["type": "nbd", "id": "b", "node-name": "second", "name": "second", "writable": true]),
            Command("block-export-add", ["type": "nbd", "id": "c", "node-name": "rest", "name": "rest", "writable": true]),
            Command("query-block-exports"),
        ])
    }

    @Test("exports are described alike, and refusals are worded alike")
    func exports() async throws {
        let scratch = try Scratch()
        let socket: JSONValue = .string(scratch.file("nbd.sock"))
        let address: JSONValue = ["type": "unix", "data": ["path": socket]]
        try await Conversation.compare([
            Command("nbd-server-stop"),
            Command("blockdev-add", ["driver": "null-co", "node-name": "disk", "size": 65536]),
            Command("blockdev-add", ["driver": "null-co", "node-name": "disk"]),
            Command("blockdev-add", ["driver": "null-co"]),
            Command("blockdev-add", ["driver": "nosuch", "node-name": "x"]),
            Command("blockdev-add", ["driver": "file", "node-name": "x"]),
            Command("blockdev-add", ["driver": "file", "node-name": "x", "filename": .string(scratch.file("absent"))]),
            Command("blockdev-add", ["driver": "file", "node-name": "1x", "filename": "a"]),
            Command("blockdev-del", ["node-name": "absent"]),
            Command("block-export-add", ["type": "nbd", "id": "e", "node-name": "disk"]),
            Command("nbd-server-start", ["addr": ["type": "unix", "data": [:]]]),
            Command("nbd-server-start", ["addr": address]),
            Command("nbd-server-start", ["addr": address]),
            Command("block-export-add", ["type": "nbd", "id": "e", "node-name": "absent"]),
            Command("block-export-add", ["type": "nbd", "id": "e", "node-name": "disk", "iothread": "absent"]),
            Command("object-add", ["qom-type": "iothread", "id": "t"]),
            Command("object-add", ["qom-type": "iothread", "id": "t"]),
            Command("object-add", ["qom-type": "iothread", "id": "1"]),
            Command("object-add", ["qom-type": "iothread", "id": "u", "poll-max-ns": -1]),
            Command("object-add", ["qom-type": "nosuch", "id": "u"]),
            Command("block-export-add", ["type": "nbd", "id": "e", "node-name": "disk", "writable": true, "iothread": "t"]),
            Command("block-export-add", ["type": "nbd", "id": "e", "node-name": "disk"]),
            Command("block-export-add", ["type": "nbd", "id": "f", "node-name": "disk"]),
            Command("block-export-add", ["type": "nbd", "id": "f", "node-name": "disk", "name": "other"]),
            Command("query-block-exports"),
            Command("object-del", ["id": "t"]),
            Command("object-del", ["id": "t"]),
            Command("block-export-del", ["id": "absent"]),
            Command("nbd-server-stop"),
            Command("query-block-exports"),
            Command("blockdev-del", ["node-name": "disk"]),
            Command("query-named-block-nodes"),
        ])
    }
}
