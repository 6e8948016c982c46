import Foundation
import IOCore
import QAPIRuntime
import Testing

/// The commands on dirty bitmaps, and transactions of them: the same script for QEMU's daemon and for ours.
@Suite("dirty bitmaps by command")
struct BitmapCommandTests {
    private typealias Command = Conversation.Command

    private static func add(
        _ node: String, _ name: String, granularity: Int? = nil, persistent: Bool? = nil, disabled: Bool? = nil
    ) -> Command {
        Command("block-dirty-bitmap-add", added(node, name, granularity: granularity, persistent: persistent, disabled: disabled))
    }

    private static func added(
        _ node: String, _ name: String, granularity: Int? = nil, persistent: Bool? = nil, disabled: Bool? = nil
    ) -> JSONValue {
        var arguments = JSONObject()
        arguments["node"] = .string(node)
        arguments["name"] = .string(name)
        arguments["granularity"] = granularity.map { .integer($0) }
        arguments["persistent"] = persistent.map { .bool($0) }
        arguments["disabled"] = disabled.map { .bool($0) }
        return .object(arguments)
    }

    private static func one(_ node: String, _ name: String) -> JSONValue { ["node": .string(node), "name": .string(name)] }

    private static func on(_ verb: String, _ node: String, _ name: String) -> Command { Command("block-dirty-bitmap-" + verb, one(node, name)) }

    private static func merged(_ node: String, _ target: String, _ sources: [JSONValue]) -> JSONValue {
        ["node": .string(node), "target": .string(target), "bitmaps": .array(sources)]
    }

    private static func merge(_ node: String, _ target: String, _ sources: [JSONValue]) -> Command {
        Command("block-dirty-bitmap-merge", merged(node, target, sources))
    }

    @Test("an image with bitmaps whose disk has shrunk to nothing can still be opened")
    func emptyDisk() async throws {
        let scratch = try Scratch()
        let path = scratch.file("image")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", path, "1M"])
        try run("qemu-img", ["bitmap", "--add", path, "kept"])
        let fixture = try ServiceFixture()
        for command in [Self.image("a", path), Command("block_resize", ["node-name": "a", "size": 0]), Command("blockdev-del", ["node-name": "a"])] {
            #expect(await fixture.failure(command.name, command.arguments) == nil)
        }
        try run("qemu-img", ["info", path])
        #expect(await fixture.failure("blockdev-add", Self.image("b", path).arguments) == nil)
        try await fixture.stop()
        try run("qemu-img", ["check", path])
    }

    private static let query = Command("query-named-block-nodes", ["flat": true])
    private static let null = Command("blockdev-add", ["driver": "null-co", "node-name": "n", "size": 1_048_576, "read-zeroes": true])

    private static func image(_ name: String, _ file: String, readOnly: Bool = false) -> Command {
        Command(
            "blockdev-add",
            [
                "driver": "qcow2", "node-name": .string(name), "read-only": .bool(readOnly), "backing": .null,
                "file": ["driver": "file", "node-name": .string(name + "-file"), "filename": .string(file), "read-only": .bool(readOnly)],
            ])
    }

    /// Errors, and the bitmaps of each node in their order.
    private static func summary(_ answer: JSONValue) -> [String] {
        guard let nodes = answer["return"]?.array else { return [(answer["error"] ?? answer["return"] ?? .null).text()] }
        return nodes.compactMap { node in
            guard let bitmaps = node["dirty-bitmaps"]?.array else { return nil }
            let texts = bitmaps.map { bitmap in
                (bitmap.object?.members.sorted { $0.key < $1.key } ?? []).map { "\($0.key)=\($0.value.text())" }.joined(separator: " ")
            }
            return "\(node["node-name"]?.string ?? ""): \(texts)"
        }.sorted()
    }

    private static func compare(_ commands: [Command]) async throws {
        let theirs = try Conversation.askQEMU(commands)
        try #require(theirs.count == commands.count)
        for (command, (ours, theirs)) in zip(commands, zip(try await Conversation.askOurs(commands), theirs)) {
            #expect(summary(ours) == summary(theirs), "\(command.name) \(command.arguments.text().prefix(300))")
        }
    }

    @Test("adding, changing, merging and removing bitmaps answers as QEMU's daemon does, refusals included")
    func conversation() async throws {
        let scratch = try Scratch()
        let disk = scratch.disk("disk", byteCount: 4 << 20)
        let digest = { (node: String, name: String) in Command("x-debug-block-dirty-bitmap-sha256", Self.one(node, name)) }
        let long = String(repeating: "x", count: 1023)
        try await Self.compare([
            Self.null, Command("blockdev-add", ["driver": "raw", "node-name": "r", "file": ["driver": "file", "filename": .string(disk)]]),
            Self.add("n", "a"), Self.add("n", "a"), Self.add("zz", "a"), Self.add("n", ""), Self.add("n", long), Self.add("n", long + "x"),
            Self.add("n", "b", granularity: 511), Self.add("n", "b", granularity: 0), Self.add("n", "b", granularity: 1 << 32),
            Self.add("n", "b", granularity: -1), Self.add("n", "b", granularity: 1 << 31), Self.add("n", "c", granularity: 512, disabled: true),
            Self.add("n", "p", persistent: true), Self.add("r", "r0", granularity: 65536), Self.add("r", "r1", granularity: 4096, disabled: true), Self.query,
            digest("n", "a"), digest("n", "c"), digest("r", "r0"), digest("r", "zz"), digest("zz", "r0"),
            Self.on("remove", "r", "zz"), Self.on("remove", "zz", "a"), Self.on("clear", "r", "zz"), Self.on("clear", "zz", "a"),
            Self.on("enable", "r", "zz"), Self.on("disable", "r", "zz"), Self.on("enable", "n", "c"), Self.on("disable", "n", "a"), Self.query,
            Self.on("enable", "n", "c"), Self.on("disable", "n", "a"), Self.on("clear", "n", "a"),
            Self.merge("r", "zz", ["r0"]), Self.merge("r", "r0", ["zz"]), Self.merge("r", "r0", ["r0"]), Self.merge("r", "r0", ["r1", Self.one("r", "r1")]),
            Self.merge("r", "r0", [Self.one("n", "a")]), Self.merge("r", "r0", [Self.one("zz", "a")]), Self.merge("zz", "r0", ["r1"]),
            Self.on("remove", "n", "a"), Self.add("n", "a"), Self.query,
        ])
    }

    @Test("transactions of bitmap actions leave what QEMU's leave, whether they succeed or fail at any position")
    func transactions() async throws {
        func action(_ type: String, _ data: JSONValue) -> JSONValue { ["type": .string(type), "data": data] }
        func transaction(_ actions: [JSONValue], mode: String? = nil) -> Command {
            var arguments = JSONObject()
            arguments["actions"] = .array(actions)
            arguments["properties"] = mode.map { ["completion-mode": .string($0)] }
            return Command("transaction", .object(arguments))
        }
        let abort = action("abort", [:])
        let steps = [
            action("block-dirty-bitmap-add", Self.added("n", "new", granularity: 512)), action("block-dirty-bitmap-clear", Self.one("n", "a")),
            action("block-dirty-bitmap-disable", Self.one("n", "a")), action("block-dirty-bitmap-enable", Self.one("n", "b")),
            action("block-dirty-bitmap-merge", Self.merged("n", "b", ["a", "new"])), action("block-dirty-bitmap-remove", Self.one("n", "c")),
        ]
        var script = [Self.null, Self.add("n", "a"), Self.add("n", "b", disabled: true), Self.add("n", "c"), Self.query]
        for position in 0...steps.count { script += [transaction(Array(steps[..<position]) + [abort] + steps[position...]), Self.query] }
        script += [
            transaction([]), transaction([abort]), transaction([abort], mode: "individual"), transaction([abort], mode: "grouped"),
            transaction([steps[1]], mode: "grouped"), transaction([action("block-dirty-bitmap-clear", Self.one("n", "zz"))]),
            transaction([steps[5], steps[5]]), transaction([steps[5], action("block-dirty-bitmap-add", Self.added("n", "c"))]),
            transaction([steps[0], steps[0]]), transaction([steps[5], action("block-dirty-bitmap-clear", Self.one("n", "c"))]), Self.query,
            transaction(steps), Self.query,
        ]
        try await Self.compare(script)
    }

    /// Where the images lie differs between the two, and nothing else.
    @Test("persistent bitmaps answer as QEMU's do, read-only and writable, and what either has stored the other loads")
    func persistent() async throws {
        let scratch = try Scratch()
        func images() throws {
            for name in ["a", "o", "v2"] { if FileManager.default.fileExists(atPath: scratch.file(name)) { try FileManager.default.removeItem(atPath: scratch.file(name)) } }
            try run("qemu-img", ["create", "-q", "-f", "qcow2", scratch.file("a"), "64M"])
            try run("qemu-img", ["create", "-q", "-f", "qcow2", scratch.file("o"), "64M"])
            try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "compat=0.10", scratch.file("v2"), "64M"])
            try run("qemu-img", ["bitmap", "--add", scratch.file("a"), "b0"])
            try run("qemu-img", ["bitmap", "--add", "--disable", "-g", "4096", scratch.file("a"), "b1"])
        }
        func reopen(_ readOnly: Bool) -> Command {
            Command(
                "blockdev-reopen",
                [
                    "options": [
                        [
                            "driver": "qcow2", "node-name": "a", "read-only": .bool(readOnly), "backing": .null,
                            "file": ["driver": "file", "node-name": "a-file", "filename": .string(scratch.file("a")), "read-only": .bool(readOnly)],
                        ]
                    ]
                ])
        }
        let long = String(repeating: "x", count: 1024)
        let first = [
            Self.image("a", scratch.file("a")), Self.image("v2", scratch.file("v2")), Self.query,
            Self.add("v2", "p", persistent: true), Self.add("a", long, persistent: true), Self.add("a", "b0", persistent: true),
            Self.add("a", "b0"), Self.add("a", "fine", granularity: 512, persistent: true), Self.add("a", "coarse", granularity: 1 << 31, persistent: true),
            Self.add("a", "t"), Self.query, Self.on("disable", "a", "b0"), Self.on("enable", "a", "b1"), reopen(true), Self.query,
            Self.on("clear", "a", "b0"), Self.on("clear", "a", "t"), Self.on("remove", "a", "b0"), Self.on("enable", "a", "b0"), Self.on("disable", "a", "b0"),
            Self.merge("a", "b0", ["fine"]), Self.merge("a", "b0", ["zz"]), Self.merge("a", "t", ["fine"]), reopen(false), Self.query,
            Self.on("remove", "a", "coarse"), Self.on("clear", "a", "b0"), Self.image("o", scratch.file("o")),
            Command("blockdev-snapshot", ["node": "a", "overlay": "o"]), Self.query, Self.on("clear", "a", "b0"), Self.add("o", "up", persistent: true), Self.query,
        ]
        let second = [Self.image("a", scratch.file("a")), Self.image("o", scratch.file("o")), Self.query, Self.on("remove", "a", "b1"), Self.query]
        var lists: [String] = []
        for (index, isOursFirst) in [true, false].enumerated() {
            try images()
            let answers = isOursFirst ? try await Conversation.askOurs(first) : try Conversation.askQEMU(first)
            let loaded = isOursFirst ? try Conversation.askQEMU(second) : try await Conversation.askOurs(second)
            lists.append((answers + loaded).map { Self.summary($0).joined(separator: "\n") }.joined(separator: "\n\n"))
            for name in ["a", "o"] {
                // Any error that a check finds ends it with another status than 0.
                try run("qemu-img", ["check", "-q", scratch.file(name)])
                lists[index] += try run("qemu-img", ["info", "--output=json", scratch.file(name)]).split(separator: "\n").filter { line in
                    ["\"name\": \"b", "\"name\": \"f", "\"name\": \"up", "granularity", "auto", "in-use"].contains { line.contains($0) }
                }.joined(separator: "\n")
            }
        }
        #expect(lists[0] == lists[1])
    }

    @Test("a snapshot that a transaction takes is undone when a later action fails, and the file that was made for it is gone")
    func snapshots() async throws {
        let scratch = try Scratch()
        for name in ["a", "b", "c"] { try run("qemu-img", ["create", "-q", "-f", "qcow2", scratch.file(name), "1M"]) }
        let fixture = try ServiceFixture()
        for name in ["a", "b", "c"] {
            let node = Self.image(name, scratch.file(name))
            #expect(await fixture.failure(node.name, node.arguments) == nil)
        }
        #expect(await fixture.failure("block-dirty-bitmap-add", Self.added("a", "kept", persistent: true)) == nil)
        func shape() async -> String { await fixture.execute(Self.query.name, Self.query.arguments)["return"]?.text() ?? "" }
        func snapshotSync(_ node: String, _ name: String) -> JSONValue {
            [
                "type": "blockdev-snapshot-sync",
                "data": ["node-name": .string(node), "snapshot-file": .string(scratch.file(name)), "snapshot-node-name": .string(name)],
            ]
        }
        let actions: [JSONValue] = [
            ["type": "block-dirty-bitmap-clear", "data": ["node": "a", "name": "kept"]],
            ["type": "blockdev-snapshot", "data": ["node": "a", "overlay": "b"]],
            snapshotSync("c", "made"),
            snapshotSync("b", "second"),
            ["type": "block-dirty-bitmap-add", "data": ["node": "second", "name": "new"]],
        ]
        let before = await shape()
        for position in 0...actions.count {
            var failing = actions
            failing.insert(["type": "abort", "data": [:]], at: position)
            #expect(await fixture.failure("transaction", ["actions": .array(failing)]) == "Transaction aborted using Abort action")
            #expect(await shape() == before, "failing at \(position)")
            for name in ["made", "second"] { #expect(!FileManager.default.fileExists(atPath: scratch.file(name)), "failing at \(position)") }
        }
        // The images are as writable as they were.
        #expect(await fixture.failure("block_resize", ["node-name": "a", "size": 2_097_152]) == nil)
        #expect(await fixture.failure("transaction", ["actions": .array(actions)]) == nil)
        #expect(FileManager.default.fileExists(atPath: scratch.file("made")))
        try await fixture.stop()
        for name in ["a", "b", "c", "made", "second"] { try run("qemu-img", ["check", "-q", scratch.file(name)]) }
        let info = try JSONValue(parsing: try run("qemu-img", ["info", "--output=json", scratch.file("a")]))
        #expect(info["format-specific"]?["data"]?["bitmaps"]?.array?.map { $0["name"]?.string ?? "" } == ["kept"])
    }
}
