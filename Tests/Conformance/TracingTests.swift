import Foundation
import StrataTesting
import Testing

/// What a trace in JSON lines says.
private struct TraceReading {
    let events: [JSON]

    init(file path: String) throws {
        // The last line may be half written yet.
        let text = String(decoding: (try? Data(contentsOf: URL(filePath: path))) ?? Data(), as: UTF8.self)
        events = try text.split(separator: "\n", omittingEmptySubsequences: false).dropLast().map { try JSON(parsing: Data($0.utf8)) }
    }

    /// What began and did not end: the data of `<name>_begin` events to which no `<name>_end` has the same values of `keys`.
    func unfinished(_ name: String, by keys: [String]) -> [JSON] {
        var open: [(key: [JSON?], data: JSON)] = []
        for event in events {
            guard let data = event["data"] else { continue }
            let key = keys.map { data[$0] }
            if event["event"]?.string == name + "_begin" { open.append((key, data)) }
            if event["event"]?.string == name + "_end", let index = open.firstIndex(where: { $0.key == key }) { open.remove(at: index) }
        }
        return open.map(\.data)
    }
}

@Suite("tracing")
struct TracingTests {
    @Test("a trace names the request that is stuck, and the node whose server has stopped")
    func stuckRequest() throws {
        let folder = try TemporaryFolder()
        try QEMU.img("create", "-f", "qcow2", "disk.qcow2", "1M", in: folder)
        try QEMU.io("disk.qcow2", ["write -P 7 0 128k"], in: folder)
        let peer = try ChildProcess("qemu-nbd", ["-t", "-f", "raw", "-x", "remote", "-k", folder.path("peer.sock"), "disk.qcow2"], in: folder.url)
        defer {
            peer.send(SIGCONT)
            peer.send(SIGKILL)
        }
        try #require(waitUntil { folder.contains("peer.sock") })
        let trace = folder.path("trace.json")
        let daemon = try Daemon(["--trace", "enable=*,file=\(trace)"], in: folder)
        try daemon.monitor.execute(
            "blockdev-add",
            [
                "driver": "nbd", "node-name": "remote", "export": "remote", "server": ["type": "unix", "path": .string(folder.path("peer.sock"))],
            ])
        try daemon.monitor.execute("blockdev-add", ["driver": "qcow2", "node-name": "disk", "file": "remote"])
        try daemon.monitor.execute("block-export-add", ["type": "nbd", "id": "disk", "node-name": "disk", "name": "disk", "writable": true])
        let client = try PlainNBDClient(path: daemon.nbdPath, export: "disk")
        // The mapping is in memory after this one.
        #expect(try client.read(512, at: 0) == [UInt8](repeating: 7, count: 512))

        peer.send(SIGSTOP)
        try client.submit(.read, cookie: 0xbeef, offset: 65536, length: 4096)
        // Answered although the other one is not.
        try client.submit(.read, cookie: 0xcafe, offset: 512 << 10, length: 512)
        #expect(try client.reply(readLength: 512).cookie == 0xcafe)

        #expect(
            waitUntil {
                let reading = try? TraceReading(file: trace)
                return reading?.unfinished("bdrv_read", by: ["node", "offset", "bytes"]).contains { $0["node"] == "remote" } == true
                    && reading?.unfinished("nbd_request", by: ["cookie"]).count == 1
            })
        let held = try TraceReading(file: trace)
        let requests = held.unfinished("nbd_request", by: ["cookie"])
        #expect(requests.map { $0["cookie"] } == [JSON(integerLiteral: 0xbeef)])
        #expect(requests.first?["offset"] == 65536)
        // Through the export's backend and the format to the node below, which is the last to have it.
        #expect(held.unfinished("blk_request", by: ["request"]).map { $0["offset"] } == [65536])
        let nodes = held.unfinished("bdrv_read", by: ["node", "offset", "bytes"])
        #expect(nodes.map { $0["node"] } == ["disk", "remote"])
        #expect(nodes.first?["offset"] == 65536)
        let peers = held.unfinished("nbd_client_request", by: ["server", "command", "offset"])
        #expect(peers.count == 1)
        #expect(peers.first?["server"]?.string?.contains("peer.sock") == true)

        peer.send(SIGCONT)
        #expect(try client.reply(readLength: 4096).data == [UInt8](repeating: 7, count: 4096))
        #expect(waitUntil { (try? TraceReading(file: trace).unfinished("nbd_request", by: ["cookie"]).isEmpty) == true })
        try daemon.quit()
        let end = try TraceReading(file: trace)
        for (name, keys) in [
            ("nbd_request", ["cookie"]), ("blk_request", ["request"]), ("bdrv_read", ["node", "offset", "bytes"]), ("qmp_command", ["command", "id"]),
            ("graph_node_open", ["node"]), ("graph_node_close", ["node"]), ("qcow2_obstacle", ["obstacle"]), ("qcow2_commit", ["scope"]),
        ] {
            #expect(end.unfinished(name, by: keys) == [], "\(name) began and did not end")
        }
        #expect(end.events.contains { $0["event"] == "nbd_session_end" }, "the last events are written at the end")
    }

    @Test("a write into new clusters tells of its allocation, the copy, and the order in which metadata goes to the file")
    func allocation() throws {
        let folder = try TemporaryFolder()
        try QEMU.img("create", "-f", "qcow2", "disk.qcow2", "1M", in: folder)
        let trace = folder.path("trace.ndjson")
        let daemon = try Daemon(["-T", "qcow2_*", "-T", "file=\(trace)"], in: folder)
        try daemon.serve("disk.qcow2")
        let client = try PlainNBDClient(path: daemon.nbdPath, export: "disk")
        try client.submit(.write, cookie: 1, offset: 70000, length: 1000, data: [UInt8](repeating: 1, count: 1000))
        _ = try client.reply()
        try client.submit(.flush, cookie: 2)
        _ = try client.reply()
        try daemon.quit()
        let names = try TraceReading(file: trace).events.compactMap { $0["event"]?.string }
        let order = ["qcow2_allocate", "qcow2_publish", "qcow2_commit_begin", "qcow2_refcount_block_write", "qcow2_flush_begin", "qcow2_l2_write"]
        let places = order.map { name in names.firstIndex(of: name) ?? -1 }
        #expect(places == places.sorted() && !places.contains(-1), "\(zip(order, places).map { "\($0) \($1)" })")
    }

    @Test("events are turned on and off over QMP, and refused as QEMU refuses them")
    func monitor() throws {
        let folder = try TemporaryFolder()
        let daemon = try Daemon(nbd: false, in: folder)
        func states(_ name: String) throws -> [JSON] {
            try daemon.monitor.execute("trace-event-get-state", ["name": .string(name)]).array ?? []
        }
        #expect(try states("blk_request_begin") == [["name": "blk_request_begin", "state": "disabled"]])
        #expect(try states("nothing_like_*") == [])
        try daemon.monitor.execute("trace-event-set-state", ["name": "blk_request_*", "enable": true])
        #expect(try states("blk_request_*").map { $0["state"] } == ["enabled", "enabled", "enabled"])
        #expect(try states("bdrv_flush_begin").first?["state"] == "disabled")
        try daemon.monitor.execute("trace-event-set-state", ["name": "*", "enable": false, "ignore-unavailable": true])
        #expect(try states("*").allSatisfy { $0["state"] == "disabled" })
        for command in ["trace-event-get-state", "trace-event-set-state"] {
            var arguments: [String: JSON] = ["name": "nothing"]
            if command == "trace-event-set-state" { arguments["enable"] = true }
            let error = #expect(throws: QMPLineClient.Refusal.self) { try daemon.monitor.execute(command, .object(arguments)) }
            #expect(error?.description == "GenericError: unknown event \"nothing\"")
        }
        try daemon.quit()
    }

    @Test("every tool and command lists its events, and says what is wrong with --trace")
    func everyTool() throws {
        let folder = try TemporaryFolder()
        for words in [["img", "-T", "help"], ["img", "info", "--trace", "?"], ["daemon", "--trace", "help"], ["qmp", "-T", "help"]] {
            let finished = try mustRun(Strata.binary, words, in: folder.url)
            #expect(finished.text.split(separator: "\n").contains("qcow2_allocate"), "\(words)")
        }
        try QEMU.img("create", "-f", "qcow2", "disk.qcow2", "1M", in: folder)
        let finished = try run(Strata.binary, ["img", "-T", "nosuch", "info", "-T", "graph_node_open_*", "disk.qcow2"], in: folder.url)
        #expect(finished.succeeded)
        #expect(finished.errorText.hasPrefix("strata img: warning: trace event 'nosuch' does not exist\n"))
        let lines = finished.errorText.split(separator: "\n").dropFirst()
        #expect(lines.count == 4)
        for line in lines { #expect(line.contains(#/^\d+@\d+\.\d{6}:graph_node_open_(begin|end) node '#block\d+' driver (qcow2|file)/#), "\(line)") }
    }
}
