import Foundation
import StrataTesting
import Testing

/// Dirty bitmaps as clients see them: `qemu:dirty-bitmap:NAME`, beside what QEMU's daemon shows.
@Suite("dirty bitmaps over NBD")
struct DirtyBitmapExportTests {
    private static let size = 8 << 20

    /// A chain of two images; the lower has bitmap `low` with something in it, the upper `up`, which notes what is written.
    private static func images(_ folder: TemporaryFolder) throws {
        try QEMU.img("create", "-f", "qcow2", "low.qcow2", "\(size)", in: folder)
        try QEMU.img("bitmap", "--add", "-g", "4096", "low.qcow2", "low", in: folder)
        try QEMU.io("low.qcow2", ["write 1M 100k", "write 5M 1", "write \(size - 512) 512"], in: folder)
        try QEMU.img("create", "-f", "qcow2", "-b", "low.qcow2", "-F", "qcow2", "up.qcow2", in: folder)
        try QEMU.img("bitmap", "--add", "-g", "65536", "up.qcow2", "up", in: folder)
    }

    private static func daemon(_ program: String?, _ folder: TemporaryFolder, readOnly: Bool = false) throws -> Daemon {
        let daemon = try Daemon(nbd: true, program: program, in: folder)
        for (name, backing) in [("low", nil), ("up", JSON.string("low"))] as [(String, JSON?)] {
            var node: [String: JSON] = [
                "driver": "qcow2", "node-name": .string(name), "read-only": .bool(readOnly || name == "low"),
                "file": ["driver": "file", "filename": .string("\(name).qcow2"), "read-only": .bool(readOnly || name == "low")],
            ]
            if let backing { node["backing"] = backing }
            try daemon.monitor.execute("blockdev-add", .object(node))
        }
        return daemon
    }

    private static func answer(_ daemon: Daemon, _ command: String, _ arguments: JSON) -> String {
        do {
            try daemon.monitor.execute(command, arguments)
            return "done"
        } catch { return "\(error)" }
    }

    private static func export(_ id: String, _ node: String, writable: Bool, _ bitmaps: [JSON]) -> JSON {
        ["type": "nbd", "id": .string(id), "node-name": .string(node), "name": .string(id), "writable": .bool(writable), "bitmaps": .array(bitmaps)]
    }

    private static func map(_ daemon: Daemon, _ export: String, _ context: String, _ folder: TemporaryFolder) throws -> String {
        // The map is the same however it is cut, so neighbours in one state are one line.
        let text = try mustRun("nbdinfo", ["--json", "--map=\(context)", daemon.uri(export)], in: folder.url).text
        let extents = try JSON(parsing: Data(text.utf8)).array ?? []
        var lines: [(start: Int, length: Int, type: Int)] = []
        for extent in extents {
            let (start, length, type) = (extent["offset"]?.integer ?? -1, extent["length"]?.integer ?? -1, extent["type"]?.integer ?? -1)
            if let last = lines.last, last.type == type, last.start + last.length == start { lines[lines.count - 1].length += length } else { lines.append((start, length, type)) }
        }
        return lines.map { "\($0.start)+\($0.length)=\($0.type)" }.joined(separator: " ")
    }

    @Test("clients see the same bitmaps as with QEMU's daemon, from the whole chain, and the same refusals")
    func sameAsQEMU() throws {
        var logs: [[String]] = []
        for program in [nil, "qemu-storage-daemon"] {
            let folder = try TemporaryFolder()
            try Self.images(folder)
            let daemon = try Self.daemon(program, folder)
            var log: [String] = []
            func tell(_ text: String) { log.append(text) }
            func add(_ id: String, _ writable: Bool, _ bitmaps: [JSON], node: String = "up") {
                tell("\(id): " + Self.answer(daemon, "block-export-add", Self.export(id, node, writable: writable, bitmaps)))
            }
            add("missing", true, ["nix"])
            add("elsewhere", true, [["node": "nix", "name": "low"]])
            add("nobitmap", true, [["node": "low", "name": "nix"]])
            add("readonly", false, ["up"])
            add("both", true, ["low", "up"])
            add("busy", true, ["low"])
            for command in ["remove", "clear", "disable", "enable"] {
                tell("\(command): " + Self.answer(daemon, "block-dirty-bitmap-\(command)", ["node": "up", "name": "up"]))
            }
            tell("merge: " + Self.answer(daemon, "block-dirty-bitmap-merge", ["node": "up", "target": "up", "bitmaps": [["node": "low", "name": "low"]]]))
            tell("nodes: \((try daemon.monitor.execute("query-named-block-nodes", ["flat": true]).array ?? []).compactMap { $0["dirty-bitmaps"]?.array?.map { "\($0["name"]?.string ?? "") \($0["busy"] == true)" } })")
            let client = try PlainNBDClient(path: daemon.nbdPath, export: "both")
            try client.write([1, 2, 3], at: 3 << 20)
            try client.writeZeroes(70_000, at: 200_000)
            for context in ["qemu:dirty-bitmap:low", "qemu:dirty-bitmap:up"] { tell("\(context): \(try Self.map(daemon, "both", context, folder))") }
            let contexts = try mustRun("nbdinfo", ["--json", daemon.uri("both")], in: folder.url).text
            tell((try JSON(parsing: Data(contexts.utf8))["exports"]?.array?.first?["contexts"]).map { "\($0)" } ?? "no contexts")
            // QEMU's tool over a bitmap: dirty is shown as data that is no hole.
            for (name, uri) in [("low", "low"), ("up", "up")] {
                let options = "driver=nbd,export=both,server.type=unix,server.path=\(daemon.nbdPath),x-dirty-bitmap=qemu:dirty-bitmap:\(name)"
                tell("\(uri): " + (try mustRun("qemu-img", ["map", "--output=json", "--image-opts", options], in: folder.url).text))
            }
            try client.disconnect()
            tell("del: " + Self.answer(daemon, "block-export-del", ["id": "both", "mode": "hard"]))
            _ = try waitUntil { try daemon.monitor.execute("query-block-exports").array?.isEmpty == true }
            tell("free again: " + Self.answer(daemon, "block-dirty-bitmap-clear", ["node": "up", "name": "up"]))
            tell("disable: " + Self.answer(daemon, "block-dirty-bitmap-disable", ["node": "up", "name": "up"]))
            add("readonly", false, ["up", ["node": "low", "name": "low"]])
            tell(try Self.map(daemon, "readonly", "qemu:dirty-bitmap:up", folder))
            try daemon.quit()
            logs.append(log)
        }
        for (ours, theirs) in zip(logs[0], logs[1]) { #expect(ours == theirs) }
        #expect(logs[0].count == logs[1].count)
    }

    @Test("our client reads a bitmap of qemu-nbd's as QEMU's client does")
    func asClient() throws {
        let folder = try TemporaryFolder()
        try Self.images(folder)
        let socket = folder.path("peer.sock")
        let peer = try ChildProcess("qemu-nbd", ["-r", "-f", "qcow2", "-B", "low", "-k", socket, "-t", "low.qcow2"], in: folder.url)
        defer { peer.send(SIGKILL) }
        #expect(waitUntil { FileManager.default.fileExists(atPath: socket) })
        let options = "driver=nbd,server.type=unix,server.path=\(socket),x-dirty-bitmap=qemu:dirty-bitmap:low"
        let theirs = try mustRun("qemu-img", ["map", "--output=json", "--image-opts", options], in: folder.url).text
        let ours = try Strata.mustImg("map", "--output=json", "--image-opts", options, in: folder).text
        #expect(ours == theirs)
        #expect(theirs.contains("\"data\": false") && theirs.contains("\"data\": true"))
    }
}
