import Foundation
import QAPIRuntime
import Testing

/// The same questions to QEMU's storage daemon and to ours, about many trees: the answers are compared key by key.
@Suite("queries against qemu-storage-daemon")
struct QueriesAgainstQEMUTests {
    typealias Command = Conversation.Command

    /// As `Conversation.compare`, with more of what is accidental made equal.
    static func compare(_ commands: [Command]) async throws {
        let expected = try Conversation.askQEMU(commands)
        try #require(expected.count == commands.count)
        let fixture = try ServiceFixture()
        for (command, theirs) in zip(commands, expected) {
            let ours = Conversation.withoutAdvice(await fixture.execute(command.name, command.arguments), theirs)
            #expect(normal(ours).text() == normal(theirs).text(), "\(command.name) \(command.arguments) after \(commands.prefix(2).map(\.arguments))")
        }
        try await fixture.stop()
    }

    /// What is accidental made equal: made-up node names, the order of lists and members (also inside `json:` names), numbers in a graph.
    static func normal(_ value: JSONValue) -> JSONValue {
        switch value {
        case .string(let text):
            if text.hasPrefix("json:"), let described = try? JSONValue(parsing: String(text.dropFirst(5))) { return ["json": normal(described)] }
            return .string(text.hasPrefix("#block") ? "#block" : text)
        case .array(let elements): return .array(elements.map(normal).sorted { $0.text() < $1.text() })
        case .object(let object):
            if let nodes = object["nodes"]?.array, let edges = object["edges"]?.array { return graph(nodes, edges) }
            var result = JSONObject()
            for key in object.members.map(\.key).sorted() { result[key] = object[key].map(normal) }
            return .object(result)
        default: return value
        }
    }

    /// A graph in which edges name their ends. Backends have no name in QEMU.
    private static func graph(_ nodes: [JSONValue], _ edges: [JSONValue]) -> JSONValue {
        var names: [Int: JSONValue] = [:]
        for node in nodes {
            let isBackend = node["type"] == "block-backend"
            names[node["id"]?.integer ?? 0] = isBackend ? "a backend" : normal(node["name"] ?? nil)
        }
        let named = edges.map { edge -> JSONValue in
            [
                "parent": names[edge["parent"]?.integer ?? 0] ?? nil, "child": names[edge["child"]?.integer ?? 0] ?? nil, "name": edge["name"] ?? nil,
                "perm": normal(edge["perm"] ?? nil), "shared-perm": normal(edge["shared-perm"] ?? nil),
            ]
        }
        return ["members": .array(names.values.sorted { $0.text() < $1.text() }), "uses": .array(named.sorted { $0.text() < $1.text() })]
    }

    private static let questions = [
        Command("query-named-block-nodes", ["flat": true]), Command("query-named-block-nodes"), Command("x-debug-query-block-graph"),
        Command("query-blockstats", ["query-nodes": true]), Command("query-block"),
    ]

    /// Images in a folder with a folder inside, and paths to them.
    private struct Images {
        let scratch: Scratch
        let disk: String, base: String, top: String, relative: String, colon: String

        init() throws {
            scratch = try Scratch()
            disk = scratch.disk("disk.img", byteCount: 1 << 20)
            (base, top, relative) = (scratch.file("base.qcow2"), scratch.file("top.qcow2"), scratch.file("dir/relative.qcow2"))
            colon = scratch.file("a:b.qcow2")
            try FileManager.default.createDirectory(atPath: scratch.file("dir"), withIntermediateDirectories: true)
            try run("qemu-img", ["create", "-q", "-f", "qcow2", base, "2M"])
            try run("qemu-img", ["create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", top])
            try run("qemu-img", ["create", "-q", "-f", "qcow2", "-b", "../base.qcow2", "-F", "qcow2", relative])
            try run("qemu-img", ["create", "-q", "-f", "qcow2", colon, "1M"])
            try FileManager.default.createSymbolicLink(atPath: scratch.file("link.qcow2"), withDestinationPath: relative)
        }

        func file(_ path: String, _ more: JSONObject = JSONObject()) -> JSONValue {
            var options = more
            options["driver"] = "file"
            options["filename"] = .string(path)
            return .object(options)
        }

        func qcow2(_ path: String, _ more: KeyValuePairs<String, JSONValue> = [:]) -> JSONValue {
            var options = JSONObject()
            options["driver"] = "qcow2"
            options["file"] = file(path)
            for (key, value) in more { options[key] = value }
            return .object(options)
        }

        /// An overlay that names its backing file in its own way.
        func overlay(_ name: String, backing: String, format: String) throws -> JSONValue {
            try run("qemu-img", ["create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", format, scratch.file(name), "1M"])
            return qcow2(scratch.file(name))
        }
    }

    private static func ask(about trees: [JSONValue]) async throws {
        for tree in trees {
            var options = try #require(tree.object)
            options["node-name"] = "root"
            try await compare([Command("blockdev-add", .object(options))] + questions)
        }
    }

    @Test("file names of files, windows and formats on formats")
    func plainNames() async throws {
        let images = try Images()
        let file = images.file(images.disk)
        try await Self.ask(about: [
            file, images.file(images.scratch.path + "/./disk.img"), ["driver": "raw", "file": file], ["driver": "raw", "offset": 512, "file": file],
            ["driver": "raw", "offset": 0, "size": 1024, "file": file], ["driver": "file", "filename": .string(images.disk), "locking": "off"],
            ["driver": "file", "filename": .string(images.disk), "read-only": true], ["driver": "null-co"], ["driver": "null-co", "size": 4096],
            ["driver": "null-co", "read-zeroes": true], ["driver": "null-co", "latency-ns": 7], ["driver": "raw", "file": ["driver": "null-co"]],
            ["driver": "raw", "file": ["driver": "null-co", "size": 4096]], ["driver": "raw", "size": 1024, "file": ["driver": "null-co", "size": 4096]],
            ["driver": "raw", "file": ["driver": "raw", "file": file]], ["driver": "raw", "file": ["driver": "raw", "size": 512, "file": file]],
            images.file(images.colon), images.file("file:" + images.disk),
        ])
    }

    @Test("file names of images with backing files, named by the image, by the user, and not at all")
    func chains() async throws {
        let images = try Images()
        let base = images.qcow2(images.base)
        try await Self.ask(about: [
            images.qcow2(images.top), images.qcow2(images.top, ["backing": nil]), images.qcow2(images.top, ["backing": ""]),
            images.qcow2(images.top, ["backing": base]), images.qcow2(images.relative), images.qcow2(images.relative, ["backing": base]),
            images.qcow2(images.base, ["backing": nil]), images.qcow2(images.top, ["lazy-refcounts": true]),
            images.qcow2(images.top, ["backing": ["driver": "raw", "file": images.file(images.base)]]),
            ["driver": "raw", "file": images.qcow2(images.top)], ["driver": "qcow2", "file": ["driver": "raw", "file": images.file(images.relative)]],
            ["driver": "qcow2", "file": ["driver": "raw", "offset": 0, "file": images.file(images.relative)]],
        ])
    }

    @Test("backing files are found where QEMU finds them, whatever way the image names them")
    func backingNames() async throws {
        let images = try Images()
        let path = images.base
        try await Self.ask(about: [
            // Relative to the directory of the name, not of what the name links to.
            images.qcow2(images.scratch.file("link.qcow2")),
            try images.overlay("1.qcow2", backing: #"json:{"driver":"qcow2","file":{"driver":"file","filename":"\#(path)"}}"#, format: "qcow2"),
            try images.overlay("2.qcow2", backing: "json:{'driver':'qcow2','file.filename':'\(path)','file.driver':'file'}", format: "qcow2"),
            try images.overlay("3.qcow2", backing: "json:{'driver':'file','filename':'\(path)'}", format: "qcow2"),
            try images.overlay("4.qcow2", backing: "file:" + path, format: "qcow2"), try images.overlay("5.qcow2", backing: "foo:bar", format: "raw"),
            try images.overlay("6.qcow2", backing: path, format: "qcow2"), try images.overlay("7.qcow2", backing: "./a:b.qcow2", format: "qcow2"),
            try images.overlay("8.qcow2", backing: "a:b.qcow2", format: "qcow2"), try images.overlay("9.qcow2", backing: "dir/../base.qcow2", format: "qcow2"),
            try images.overlay("10.qcow2", backing: "null-co://", format: "null-co"), try images.overlay("11.qcow2", backing: "null-co://", format: "raw"),
            try images.overlay("12.qcow2", backing: "base.qcow2", format: "file"), try images.overlay("13.qcow2", backing: "absent", format: "raw"),
        ])
    }

    @Test("children inherit read-only, cache modes and force-share as in QEMU")
    func inheritance() async throws {
        let images = try Images()
        func chain(_ top: KeyValuePairs<String, JSONValue>, _ base: KeyValuePairs<String, JSONValue> = [:]) throws -> JSONValue {
            var options = try #require(images.qcow2(images.top, top).object)
            options["backing"] = images.qcow2(images.base, base)
            return .object(options)
        }
        let reader = images.file(images.disk, JSONObject(["read-only": true]))
        try await Self.ask(about: [
            chain(["cache": ["direct": false, "no-flush": true], "detect-zeroes": "on", "discard": "unmap"]), chain([:], ["read-only": false]),
            chain([:], ["cache": ["no-flush": true]]), chain(["read-only": true]), chain(["read-only": true, "force-share": true]),
            ["driver": "raw", "file": reader],
            ["driver": "raw", "read-only": true, "file": images.file(images.disk, JSONObject(["read-only": false]))],
            ["driver": "raw", "read-only": true, "file": images.file(images.disk, JSONObject(["auto-read-only": true]))],
        ])
    }

    @Test("filters, drivers for tests and quorums are described as QEMU describes them")
    func filters() async throws {
        let images = try Images()
        let (file, top) = (images.file(images.disk), images.qcow2(images.top))
        let null: JSONValue = ["driver": "null-co"]
        let rules = images.scratch.file("rules")
        try Data("[inject-error]\nevent = \"read_aio\"\n".utf8).write(to: URL(fileURLWithPath: rules))
        func throttle(_ below: JSONValue) -> JSONValue { ["driver": "throttle", "throttle-group": "group", "file": below] }
        let trees: [(JSONValue, isGraphOurs: Bool)] = [
            (throttle(file), false), (throttle(top), false), (["driver": "raw", "file": throttle(file)], false), (["driver": "compress", "file": top], false),
            // Permission to write is asked for when somebody reads, not before.
            (["driver": "copy-on-read", "file": top], true),
            (["driver": "copy-on-read", "bottom": "bottom", "file": images.qcow2(images.top, ["backing": images.qcow2(images.base, ["node-name": "bottom"])])], true),
            (["driver": "preallocate", "file": file], false), (["driver": "preallocate", "prealloc-size": 1_048_576, "prealloc-align": 65536, "file": file], false),
            (["driver": "blkdebug", "image": file], false), (["driver": "blkdebug", "image": file, "config": .string(rules)], false),
            (["driver": "qcow2", "file": ["driver": "blkdebug", "image": images.file(images.top)]], false),
            ([
                "driver": "blkdebug", "image": file, "align": 4096, "max-transfer": 65536, "discard": "unmap",
                "inject-error": [["event": "read_aio", "errno": 5, "once": true], ["event": "l2_load"]], "set-state": [["event": "l2_load", "new_state": 2]],
            ], false),
            (["driver": "blkverify", "test": null, "raw": null], false),
            (["driver": "blkverify", "test": ["driver": "raw", "file": null], "raw": file], false),
            (["driver": "quorum", "vote-threshold": 1, "children": [null, null]], false),
            (["driver": "quorum", "vote-threshold": 2, "read-pattern": "fifo", "children": [file, file]], true),
            (["driver": "quorum", "vote-threshold": 2, "blkverify": true, "rewrite-corrupted": false, "children": [null, null]], false),
            (["driver": "quorum", "vote-threshold": 2, "rewrite-corrupted": true, "children": [null, null]], true),
            (["driver": "null-aio", "size": 4096], false), (images.file(images.disk, JSONObject(["aio": "threads", "auto-read-only": true])), false),
            (images.file(images.disk, JSONObject(["drop-cache": false, "x-check-cache-dropped": true, "aio-max-batch": 5])), false),
        ]
        for (tree, isGraphOurs) in trees {
            var options = try #require(tree.object)
            options["node-name"] = "root"
            let asked = isGraphOurs ? Self.questions.filter { $0.name != "x-debug-query-block-graph" } : Self.questions
            let group = Command("object-add", ["qom-type": "throttle-group", "id": "group"])
            try await Self.compare([group, Command("blockdev-add", .object(options))] + asked)
        }
    }

    @Test("names and options that make no sense are refused in the same words, at the same place")
    func refusals() async throws {
        let images = try Images()
        func null(_ name: String, _ more: KeyValuePairs<String, JSONValue> = [:]) -> Command {
            var options = JSONObject()
            options["driver"] = "null-co"
            options["node-name"] = .string(name)
            for (key, value) in more { options[key] = value }
            return Command("blockdev-add", .object(options))
        }
        func add(_ options: JSONValue) -> Command {
            var object = options.object ?? JSONObject()
            object["node-name"] = "x"
            return Command("blockdev-add", .object(object))
        }
        let file = images.file(images.top)
        try await Self.compare([
            null(""), null(String(repeating: "a", count: 32)), null("a b"), null("#x"), null("é"), null("1x"), null("-x"),
            null("a"), null("a"), null(String(repeating: "b", count: 31)), null("c", ["detect-zeroes": "unmap"]),
            null("d", ["detect-zeroes": "unmap", "discard": "unmap"]), null("e", ["size": "5"]), null("f", ["foo": 1]),
            add(["driver": "raw", "file": ["driver": "null-co", "node-name": "x"]]), add(["driver": "raw", "file": ""]), add(["driver": "raw"]),
            add(["driver": "raw", "file": nil]), add(["driver": "raw", "file": ["driver": "null-co", "foo": 1]]), add(["driver": "raw", "file": "absent"]),
            add(["driver": "qcow2", "file": file, "backing": ["driver": "qcow2", "foo": 2, "file": images.file(images.base)]]),
            add(["driver": "qcow2", "file": file, "cache": ["foo": 2]]), add(["driver": "qcow2", "file": file, "backing": "absent"]),
            add(["driver": "file", "filename": .string(images.disk), "force-share": true]), add(["driver": "nosuch"]),
            Command("query-named-block-nodes", ["flat": true]),
        ])
    }

    @Test("what exports hold, and what they let others do, is in the graph")
    func exports() async throws {
        let images = try Images()
        let address: JSONValue = ["type": "unix", "data": ["path": .string(images.scratch.file("nbd.sock"))]]
        try await Self.compare([
            Command("blockdev-add", ["driver": "qcow2", "node-name": "top", "file": images.file(images.top)]),
            Command("nbd-server-start", ["addr": address]),
            Command("block-export-add", ["type": "nbd", "id": "e", "node-name": "top", "writable": true]),
            Command("block-export-add", ["type": "nbd", "id": "f", "node-name": "top", "name": "f"]),
            Command("x-debug-query-block-graph"), Command("query-block"), Command("query-blockstats", ["query-nodes": true]),
        ])
    }
}

extension JSONObject {
    fileprivate init(_ members: KeyValuePairs<String, JSONValue>) {
        self.init()
        for (key, value) in members { self[key] = value }
    }
}
