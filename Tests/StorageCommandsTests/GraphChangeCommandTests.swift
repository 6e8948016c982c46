import Foundation
import QAPIRuntime
import Testing

/// Commands that change a graph in use: the same script for QEMU's daemon and for ours.
@Suite("graph changes by command")
struct GraphChangeCommandTests {
    private typealias Command = Conversation.Command

    private func add(_ name: String, _ file: String, backing: Bool = false) -> Command {
        var arguments = JSONObject()
        arguments["driver"] = "qcow2"
        arguments["node-name"] = .string(name)
        arguments["file"] = ["driver": "file", "node-name": .string(name + "f"), "filename": .string(file)]
        if !backing { arguments["backing"] = .null }
        return Command("blockdev-add", .object(arguments))
    }

    @Test("snapshots, children, sizes, thresholds and threads answer as QEMU's do")
    func conversation() async throws {
        let scratch = try Scratch()
        for name in ["a", "b", "c"] { try run("qemu-img", ["create", "-q", "-f", "qcow2", scratch.file(name), "1M"]) }
        let snapshot = { (node: JSONValue, overlay: JSONValue) in Command("blockdev-snapshot", ["node": node, "overlay": overlay]) }
        let change = { (arguments: JSONValue) in Command("x-blockdev-change", arguments) }
        let thread = { (arguments: JSONValue) in Command("x-blockdev-set-iothread", arguments) }
        let address: JSONValue = ["type": "unix", "data": ["path": .string(scratch.file("nbd.sock"))]]
        try await Conversation.compare([
            add("a", scratch.file("a")), add("b", scratch.file("b")),
            Command("blockdev-add", ["driver": "null-co", "node-name": "n"]),
            Command("blockdev-add", ["driver": "raw", "node-name": "r", "file": "n"]),
            snapshot("nix", "b"), snapshot("a", "nix"), snapshot("a", "n"), snapshot("a", "a"),
            snapshot("a", "b"), snapshot("a", "b"), snapshot("b", "a"),
            Command("blockdev-del", ["node-name": "a"]), Command("blockdev-del", ["node-name": "af"]),
            Command("blockdev-del", ["node-name": "n"]), Command("blockdev-del", ["node-name": "nix"]),
            Command("block_resize", ["node-name": "a", "size": 4096]),
            change(["parent": "nix", "node": "n"]), change(["parent": "a"]), change(["parent": "a", "child": "file", "node": "n"]),
            change(["parent": "a", "child": "nix"]), change(["parent": "a", "child": "file"]), change(["parent": "a", "node": "nix"]),
            change(["parent": "a", "node": "n"]),
            Command("block_resize", ["node-name": "n", "size": 4096]), Command("block_resize", ["node-name": "nix", "size": 4096]),
            Command("block_resize", ["device": "n", "size": 4096]), Command("block_resize", ["size": 4096]),
            Command("block_resize", ["node-name": "n", "size": -1]),
            Command("block_resize", ["node-name": "b", "size": 2_097_152]),
            Command("block-set-write-threshold", ["node-name": "nix", "write-threshold": 1]),
            Command("block-set-write-threshold", ["node-name": "b", "write-threshold": 4096]),
            Command("block-set-write-threshold", ["node-name": "b", "write-threshold": 0]),
            thread(["node-name": "n", "iothread": "t"]), thread(["node-name": "nix", "iothread": "t"]), thread(["node-name": "n", "iothread": .null]),
            Command("object-add", ["qom-type": "iothread", "id": "t"]),
            thread(["node-name": "n", "iothread": "t"]),
            Command("nbd-server-start", ["addr": address]),
            Command("block-export-add", ["type": "nbd", "id": "e", "node-name": "b", "writable": true]),
            thread(["node-name": "b", "iothread": "t"]), thread(["node-name": "b", "iothread": "t", "force": true]),
            Command("blockdev-del", ["node-name": "b"]),
            add("c", scratch.file("c")),
            Command("block-export-add", ["type": "nbd", "id": "f", "name": "f", "node-name": "c"]),
            snapshot("b", "c"),
            Command("block-export-del", ["id": "f"]),
            snapshot("b", "c"),
            Command("query-block-exports"),
            Command("block-export-add", ["type": "nbd", "id": "g", "name": "g", "node-name": "n", "fixed-iothread": true, "iothread": "t"]),
            thread(["node-name": "n", "iothread": .null, "force": true]),
        ])
    }

    @Test("a quorum gains and loses children under the names that QEMU gives them")
    func members() async throws {
        typealias Command = QueriesAgainstQEMUTests.Command
        let graph = Command("x-debug-query-block-graph")
        func change(_ arguments: JSONValue) -> [Command] { [Command("x-blockdev-change", arguments), graph] }
        func add(_ name: String) -> Command { Command("blockdev-add", ["driver": "null-co", "node-name": .string(name), "size": 65536]) }
        try await QueriesAgainstQEMUTests.compare(
            ["a", "b", "c", "d", "e"].map(add) + [
                Command("blockdev-add", ["driver": "quorum", "node-name": "q", "vote-threshold": 1, "children": ["a", "b"]]), graph,
            ] + change(["parent": "q", "node": "c"]) + change(["parent": "q", "child": "children.2"]) + change(["parent": "q", "node": "d"])
                + change(["parent": "q", "node": "d"]) + change(["parent": "q", "node": "q"]) + change(["parent": "q", "child": "children.0"])
                + change(["parent": "q", "child": "children.1"]) + change(["parent": "q", "child": "children.2"]) + change(["parent": "q", "node": "a"])
                + change(["parent": "q", "child": "children.2"]) + change(["parent": "q", "child": "children.3"]) + change(["parent": "q", "node": "e"])
                + change(["parent": "q", "child": "e"]) + change(["parent": "q", "child": "children.9"]) + [
                    Command("blockdev-del", ["node-name": "e"]), Command("blockdev-del", ["node-name": "b"]), add("b"),
                    Command("blockdev-add", [
                        "driver": "quorum", "node-name": "v", "vote-threshold": 2, "blkverify": true, "children": [["driver": "null-co"], ["driver": "null-co"]],
                    ]),
                ] + change(["parent": "v", "node": "b"]) + change(["parent": "v", "child": "children.0"]) + [
                    Command("query-named-block-nodes", ["flat": true])
                ])
    }

    @Test("blockdev-snapshot-sync refuses as QEMU does, and its overlay is one that QEMU reads")
    func snapshotSync() async throws {
        let scratch = try Scratch()
        let image = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", image, "1M"])
        try run("qemu-io", ["-c", "write -P 7 0 64k", image])
        let script = { (folder: String) in
            let sync = { (arguments: JSONValue) in
                var all = arguments.object ?? JSONObject()
                if all["snapshot-file"] == nil { all["snapshot-file"] = .string(folder + "/s1.qcow2") }
                return Command("blockdev-snapshot-sync", .object(all))
            }
            return [
                self.add("a", image),
                Command("nbd-server-start", ["addr": ["type": "unix", "data": ["path": .string(folder + "/nbd.sock")]]]),
                Command("block-export-add", ["type": "nbd", "id": "e", "node-name": "a", "writable": true]),
                sync(["node-name": "a"]), sync(["node-name": "nix", "snapshot-node-name": "s"]), sync(["device": "a", "snapshot-node-name": "s"]),
                sync(["node-name": "a", "snapshot-node-name": "a"]), sync(["node-name": "a", "snapshot-node-name": "s", "format": "nix"]),
                sync(["node-name": "a", "snapshot-node-name": "s", "format": "raw"]),
                sync(["node-name": "a", "snapshot-node-name": "s", "snapshot-file": "/absent/s"]),
                sync(["node-name": "a", "snapshot-node-name": "s", "snapshot-file": "/absent/s", "mode": "existing"]),
                sync(["node-name": "a", "snapshot-node-name": "s"]),
                sync(["node-name": "a", "snapshot-node-name": "t"]),
                Command("query-block-exports"),
            ]
        }
        let (theirs, ours) = (scratch.file("theirs"), scratch.file("ours"))
        for folder in [theirs, ours] { try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true) }
        let expected = try Conversation.askQEMU(script(theirs))
        let found = try await Conversation.askOurs(script(ours))
        for (command, (ours, theirs)) in zip(script(ours), zip(found, expected)) {
            #expect(Conversation.withoutAdvice(ours, theirs) == theirs, "\(command.arguments)")
        }
        let overlay = ours + "/s1.qcow2"
        #expect(try run("qemu-img", ["info", "--output=json", overlay]).contains("\"full-backing-filename\": \"\(image)\""))
        #expect(try run("qemu-io", ["-r", "-c", "read -P 7 0 64k", overlay]).contains("read 65536/65536"))
        #expect(try run("qemu-img", ["check", overlay]).contains("No errors"))
    }

    @Test("an overlay is found again with its chain, whether the images describe it or not", arguments: [false, true])
    func foreignChain(corrected: Bool) async throws {
        let scratch = try Scratch()
        for name in ["a", "b"] { try run("qemu-img", ["create", "-q", "-f", "qcow2", scratch.file(name), "1M"]) }
        try run("qemu-io", ["-c", "write -P 7 0 64k", scratch.file("a")])
        let fixture = try ServiceFixture()
        for name in ["a", "b"] { #expect(await fixture.failure("blockdev-add", add(name, scratch.file(name)).arguments) == nil) }
        #expect(await fixture.failure("blockdev-snapshot", ["node": "a", "overlay": "b"]) == nil)
        let nodes = await fixture.execute("query-named-block-nodes", ["flat": true])["return"]?.array ?? []
        let readOnly = nodes.filter { $0["ro"] == .bool(true) }.compactMap { $0["node-name"]?.string }
        #expect(Set(readOnly) == ["a", "af"])
        if corrected {
            let arguments: JSONValue = ["device": "b", "image-node-name": "b", "backing-file": .string(scratch.file("a"))]
            #expect(await fixture.failure("change-backing-file", arguments) == nil)
        }
        let arguments: JSONValue = ["node-name": "b", "snapshot-file": .string(scratch.file("c")), "snapshot-node-name": "c"]
        #expect(await fixture.failure("blockdev-snapshot-sync", arguments) == nil)
        try await fixture.stop()
        #expect(try run("qemu-io", ["-r", "-c", "read -P 7 0 64k", scratch.file("c")]).contains("read 65536/65536"))
        let again = try ServiceFixture()
        #expect(await again.failure("blockdev-add", add("c", scratch.file("c"), backing: true).arguments) == nil)
        try await again.stop()
    }

    @Test("change-backing-file writes what QEMU reads, and refuses what QEMU refuses", arguments: ["1.1", "0.10"])
    func backingName(compat: String) async throws {
        let scratch = try Scratch()
        let (base, top) = (scratch.file("base"), scratch.file("top"))
        try run("qemu-img", ["create", "-q", "-f", "raw", base, "1M"])
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "compat=\(compat)", "-b", base, "-F", "raw", top])
        try run("qemu-io", ["-c", "write -P 9 0 64k", top])
        let long = String(repeating: "x", count: 1000)
        let fixture = try ServiceFixture()
        #expect(await fixture.failure("blockdev-add", add("top", top, backing: true).arguments) == nil)
        #expect(await fixture.failure("blockdev-add", ["driver": "null-co", "node-name": "n"]) == nil)
        let change = { (device: String, image: String, file: String) in
            await fixture.failure("change-backing-file", ["device": .string(device), "image-node-name": .string(image), "backing-file": .string(file)])
        }
        #expect(await change("nix", "top", "x") == "Cannot find device='nix' nor node-name='nix'")
        #expect(await change("top", "nix", "x") == "Cannot find device='' nor node-name='nix'")
        #expect(await change("top", "n", "x") == "not allowing backing file change on an image without a backing file")
        #expect(await change("n", "top", "x") == "'n' and image file are not in the same chain")
        #expect(await change("top", "top", long + long) != nil)
        #expect(await change("top", "top", long) == nil)
        #expect(await change("top", "top", "short") == nil)
        let described = await fixture.execute("query-named-block-nodes", ["flat": true])
        #expect(described["return"]?.array?.contains { $0["image"]?["backing-filename"] == "short" } == true)
        try await fixture.stop()
        let info = try JSONValue(parsing: run("qemu-img", ["info", "--output=json", top]))
        #expect(info["backing-filename"] == "short")
        #expect(info["backing-filename-format"] == "raw")
        try run("qemu-img", ["rebase", "-u", "-F", "raw", "-b", base, top])
        #expect(try run("qemu-img", ["check", top]).contains("No errors"))
        #expect(try run("qemu-io", ["-r", "-c", "read -P 9 0 64k", top]).contains("read 65536/65536"))
    }

    @Test("change-backing-file opens a read-only image for writing as far as its definition goes, and closes it again")
    func backingNameOfReadOnlyImage() async throws {
        let scratch = try Scratch()
        let (base, middle, top) = (scratch.disk("base", byteCount: 1 << 20), scratch.file("middle"), scratch.file("top"))
        func make() throws {
            try run("qemu-img", ["create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", middle])
            try run("qemu-img", ["create", "-q", "-f", "qcow2", "-b", middle, "-F", "qcow2", top])
        }
        func file(_ path: String, _ more: KeyValuePairs<String, JSONValue> = [:]) -> JSONValue {
            var options = JSONObject()
            options["driver"] = "file"
            options["filename"] = .string(path)
            for (key, value) in more { options[key] = value }
            return .object(options)
        }
        func change(_ device: String, _ image: String) -> Command {
            Command("change-backing-file", ["device": .string(device), "image-node-name": .string(image), "backing-file": "elsewhere"])
        }
        func addAgain(_ file: JSONValue) -> [Command] {
            [
                Command("blockdev-add", file), Command("blockdev-add", ["driver": "qcow2", "node-name": "m", "read-only": true, "file": "f"]), change("m", "m"),
                Command("blockdev-del", ["node-name": "m"]), Command("blockdev-del", ["node-name": "f"]),
            ]
        }
        let bottom: JSONValue = ["driver": "raw", "node-name": "b", "file": file(base)]
        let chain: JSONValue = [
            "driver": "qcow2", "node-name": "t", "file": file(top),
            "backing": ["driver": "qcow2", "node-name": "m", "file": file(middle), "backing": bottom],
        ]
        let scripts: [[Command]] = [
            [Command("blockdev-add", ["driver": "qcow2", "node-name": "m", "read-only": true, "file": file(middle)]), change("m", "m")],
            addAgain(file(middle, ["node-name": "f", "read-only": true])), addAgain(file(middle, ["node-name": "f"])),
            addAgain(file(middle, ["node-name": "f", "read-only": true, "auto-read-only": true])),
            [Command("blockdev-add", chain), change("t", "m"), change("m", "m"), change("t", "t")],
        ]
        /// Which nodes are read-only; anything else as it is.
        func rights(_ answer: JSONValue) -> JSONValue {
            guard let nodes = answer["return"]?.array else { return Conversation.normal(answer) }
            return Conversation.normal(.array(nodes.map { ["name": $0["node-name"] ?? nil, "ro": $0["ro"] ?? nil] }))
        }
        /// What the images say about their backing files. The format that QEMU writes is that of the image itself, ours is the backing file's.
        func names() throws -> [JSONValue?] {
            try [middle, top].map { try JSONValue(parsing: run("qemu-img", ["info", "-U", "--output=json", $0]))["backing-filename"] }
        }
        for script in scripts {
            let script = script + [Command("query-named-block-nodes", ["flat": true])]
            try make()
            let theirs = try Conversation.askQEMU(script)
            let theirNames = try names()
            try make()
            for (command, (ours, theirs)) in zip(script, zip(try await Conversation.askOurs(script), theirs)) {
                // We say which node it is.
                let ours = ours["error"]?["desc"] == "Block node 'f' is read-only" ? ["error": ["class": "GenericError", "desc": "Block node is read-only"]] : ours
                #expect(rights(ours) == rights(theirs), "\(command.name) \(command.arguments.text())")
            }
            #expect(try names() == theirNames)
        }
    }

    @Test("no overlay is made over the file of the disk that it is for, whatever the file is called and although nobody locks it")
    func overlayOverItself() async throws {
        let scratch = try Scratch()
        for name in ["base", "disk"] { try run("qemu-img", ["create", "-q", "-f", "qcow2", scratch.file(name), "1M"]) }
        try run("qemu-img", ["rebase", "-u", "-b", "base", "-F", "qcow2", scratch.file("disk")])
        try FileManager.default.createSymbolicLink(atPath: scratch.file("link"), withDestinationPath: scratch.file("disk"))
        let before = try ["base", "disk"].map { try Data(contentsOf: URL(fileURLWithPath: scratch.file($0))) }
        func file(_ name: String) -> JSONValue { ["driver": "file", "locking": "off", "filename": .string(scratch.file(name))] }
        let open = Command("blockdev-add", [
            "driver": "qcow2", "node-name": "disk", "file": file("disk"), "backing": ["driver": "qcow2", "file": file("base")],
        ])
        func snapshot(_ name: String) -> Command {
            Command("blockdev-snapshot-sync", ["node-name": "disk", "snapshot-file": .string(scratch.file(name)), "snapshot-node-name": "overlay"])
        }
        try await Conversation.compare([
            Command("blockdev-add", ["driver": "qcow2", "node-name": "base", "file": ["driver": "file", "filename": .string(scratch.file("base"))]]),
            Command("blockdev-snapshot-sync", ["node-name": "base", "snapshot-file": .string(scratch.file("base")), "snapshot-node-name": "overlay"]),
        ])
        // QEMU looks at names only, and would write over these.
        let fixture = try ServiceFixture()
        #expect(await fixture.failure(open.name, open.arguments) == nil)
        for name in ["disk", "link", "base"] {
            let command = snapshot(name)
            #expect(await fixture.failure(command.name, command.arguments)?.hasPrefix("Error: Trying to create an image with the same filename as the backing file") == true)
        }
        for (command, more) in [("drive-mirror", "m"), ("drive-backup", "b")] {
            let refusal = await fixture.failure(
                command, ["job-id": .string(more), "device": "disk", "target": .string(scratch.file("link")), "sync": "full", "format": "qcow2"])
            #expect(refusal?.hasPrefix("Error: Trying to create an image with the same filename as the backing file") == true, "\(command)")
        }
        try await fixture.stop()
        #expect(try ["base", "disk"].map { try Data(contentsOf: URL(fileURLWithPath: scratch.file($0))) } == before)
    }

    @Test("a write threshold is reported once, by the write that crosses it, and can be set again")
    func threshold() async throws {
        let scratch = try Scratch()
        let fixture = try ServiceFixture()
        let disk = scratch.disk("disk", byteCount: 1 << 20)
        let socket = scratch.file("nbd.sock")
        #expect(await fixture.failure("blockdev-add", ["driver": "file", "node-name": "disk", "filename": .string(disk)]) == nil)
        #expect(await fixture.failure("nbd-server-start", ["addr": ["type": "unix", "data": ["path": .string(socket)]]]) == nil)
        #expect(await fixture.failure("block-export-add", ["type": "nbd", "id": "e", "node-name": "disk", "writable": true]) == nil)
        let write = { (commands: [String]) in
            _ = try run("qemu-io", ["-f", "raw"] + commands.flatMap { ["-c", $0] } + ["nbd+unix:///disk?socket=\(socket)"])
        }
        let threshold = { await fixture.execute("query-named-block-nodes", ["flat": true])["return"]?.array?.first?["write_threshold"] }
        #expect(await fixture.failure("block-set-write-threshold", ["node-name": "disk", "write-threshold": 65536]) == nil)
        #expect(await threshold() == 65536)
        try write(["write 0 65536"])
        #expect(await threshold() == 65536)
        try write(["write 65536 4096", "write 131072 4096"])
        #expect(await fixture.event("BLOCK_WRITE_THRESHOLD") == ["node-name": "disk", "amount-exceeded": 4096, "write-threshold": 65536])
        #expect(await threshold() == 0)
        // Set again: the next event is about the new threshold, so the other write above has reported nothing.
        #expect(await fixture.failure("block-set-write-threshold", ["node-name": "disk", "write-threshold": 8192]) == nil)
        try write(["write -z 4096 8192"])
        #expect(await fixture.event("BLOCK_WRITE_THRESHOLD") == ["node-name": "disk", "amount-exceeded": 4096, "write-threshold": 8192])
        try await fixture.stop()
    }
}
