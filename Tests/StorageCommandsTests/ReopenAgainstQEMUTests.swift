import Foundation
import QAPIRuntime
import Testing

/// The same reopens by QEMU's storage daemon and by ours: the same outcome, the same sentence where users look for it.
@Suite("blockdev-reopen against qemu-storage-daemon")
struct ReopenAgainstQEMUTests {
    private typealias Command = Conversation.Command

    private static func reopen(_ nodes: JSONValue...) -> Command { Command("blockdev-reopen", ["options": .array(nodes)]) }

    /// A node's options: `file disk.img` over a name, and more.
    private static func node(_ driver: String, _ name: String, _ more: JSONValue = [:]) -> JSONValue {
        var object = more.object ?? JSONObject()
        object["driver"] = .string(driver)
        object["node-name"] = .string(name)
        return .object(object)
    }

    private static func file(_ name: String, _ path: String, _ more: JSONValue = [:]) -> JSONValue {
        var object = more.object ?? JSONObject()
        object["filename"] = .string(path)
        return node("file", name, .object(object))
    }

    /// Compares the answers; of nodes, what a reopen can change.
    private static func compare(_ commands: [Command]) async throws {
        let theirs = try Conversation.askQEMU(commands)
        try #require(theirs.count == commands.count)
        for (command, (ours, theirs)) in zip(commands, zip(try await Conversation.askOurs(commands), theirs)) {
            let ours = Conversation.withoutAdvice(ours, theirs)
            #expect(summary(ours) == summary(theirs), "\(command.name) \(command.arguments.text())")
        }
    }

    private static func summary(_ answer: JSONValue) -> [String] {
        guard let nodes = answer["return"]?.array else {
            let text = (answer["error"]?["desc"]?.string ?? "done").replacing("the  actual", with: "the actual")
            // We say by whom as well.
            return [text.firstRange(of: " is in use: ").map { String(text[..<$0.lowerBound]) + " is in use" } ?? text]
        }
        return nodes.map { node in
            let facts = ["drv", "ro", "cache", "detect_zeroes", "backing_file_depth"].map { "\($0) \(node[$0].map(sorted) ?? "none")" }
            let name = node["node-name"]?.string ?? ""
            let size = node["image"]?["virtual-size"]?.text() ?? ""
            return "\(name.hasPrefix("#") ? "#" : name): \(facts.joined(separator: ", ")) \(size)"
        }.sorted()
    }

    /// The text of a value with the members of an object in order.
    private static func sorted(_ value: JSONValue) -> String {
        guard let object = value.object else { return value.text() }
        return object.members.map { "\($0.key)=\($0.value.text())" }.sorted().joined(separator: " ")
    }

    private static let query = Command("query-named-block-nodes", ["flat": true])

    @Test("files: options that change, options that cannot, names that do not fit")
    func files() async throws {
        let scratch = try Scratch()
        let (a, b) = (scratch.disk("a.img", byteCount: 1 << 20), scratch.disk("b.img", byteCount: 1 << 20))
        var commands = [Command("blockdev-add", Self.file("f", a)), Command("blockdev-add", Self.node("null-co", "n", ["size": 4096]))]
        commands += [
            Self.reopen(["driver": "file", "filename": .string(a)]), Self.reopen(Self.file("x", a)), Self.reopen(Self.file("f", b)),
            Self.reopen(Self.file("f", a, ["cache": ["direct": false, "no-flush": true]])), Self.query, Self.reopen(Self.file("f", a)), Self.query,
            Self.reopen(Self.file("f", a, ["discard": "unmap", "detect-zeroes": "unmap"])), Self.query,
            Self.reopen(Self.file("f", a, ["read-only": true])), Self.query, Self.reopen(Self.file("f", a, ["read-only": false])), Self.query,
            Self.reopen(Self.file("f", a, ["nosuch": 1])), Self.reopen(Self.file("f", a, ["pr-manager": "x"])),
            Self.reopen(Self.node("null-co", "n")), Self.reopen(Self.node("null-co", "n", ["size": 512])),
            Self.reopen(Self.node("null-co", "n", ["size": 4096, "latency-ns": 5])), Self.reopen(Self.node("null-co", "n", ["size": 4096, "read-only": true])),
            Self.query,
        ]
        try await Self.compare(commands)
    }

    @Test("raw: windows, and a file below that is kept, replaced, redefined or missing")
    func raw() async throws {
        let scratch = try Scratch()
        let (a, b) = (scratch.disk("a.img", byteCount: 1 << 20), scratch.disk("b.img", byteCount: 2 << 20))
        let inside: JSONValue = ["driver": "file", "filename": .string(a)]
        try await Self.compare([
            Command("blockdev-add", Self.file("f", a)), Command("blockdev-add", Self.file("g", b)), Command("blockdev-add", Self.node("raw", "r", ["file": "f"])),
            Self.reopen(Self.node("raw", "r", ["file": "f", "offset": 512])), Self.query,
            Self.reopen(Self.node("raw", "r", ["file": "f", "offset": 4096, "size": 8192])), Self.query,
            Self.reopen(Self.node("raw", "r", ["file": "f", "size": 1000])), Self.reopen(Self.node("raw", "r", ["file": "f"])), Self.query,
            Self.reopen(Self.node("raw", "r", ["file": "g"])), Self.query, Self.reopen(Self.node("raw", "r", ["file": "nosuch"])),
            Self.reopen(Self.node("raw", "r", ["file": "r"])), Self.reopen(Self.node("raw", "r", ["file": inside])), Self.reopen(Self.node("raw", "r")),
            Command("blockdev-del", ["node-name": "f"]), Command("blockdev-del", ["node-name": "g"]), Command("blockdev-del", ["node-name": "r"]),
            Command("blockdev-add", Self.node("raw", "i", ["file": inside])), Self.reopen(Self.node("raw", "i", ["file": inside, "read-only": true])), Self.query,
            Self.reopen(Self.node("raw", "i", ["file": ["driver": "file", "filename": .string(b)]])),
            Self.reopen(Self.node("raw", "i", ["file": ["driver": "file", "filename": .string(a), "node-name": "new"]])),
            Self.reopen(Self.node("raw", "i", ["file": ["driver": "file", "filename": .string(a), "cache": ["no-flush": true]]])), Self.query,
            Self.reopen(Self.node("raw", "i", ["file": "g"])), Self.query,
        ])
    }

    @Test("qcow2: backing files replaced, detached and missing, cache sizes, read-only and back")
    func qcow2() async throws {
        let scratch = try Scratch()
        let (base, other, top) = (scratch.file("base"), scratch.file("other"), scratch.file("top"))
        for name in [base, other] { try run("qemu-img", ["create", "-q", "-f", "qcow2", name, "1M"]) }
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top])
        let readOnly: JSONValue = ["read-only": true]
        func overlay(_ backing: JSONValue?, _ more: JSONValue = [:]) -> JSONValue {
            var object = more.object ?? JSONObject()
            object["file"] = "tf"
            if let backing { object["backing"] = backing }
            return Self.node("qcow2", "t", .object(object))
        }
        try await Self.compare([
            Command("blockdev-add", Self.file("tf", top)), Command("blockdev-add", Self.file("bf", base, readOnly)),
            Command("blockdev-add", Self.file("of", other, readOnly)), Command("blockdev-add", Self.node("qcow2", "b", ["file": "bf", "read-only": true])),
            Command("blockdev-add", Self.node("qcow2", "o", ["file": "of", "read-only": true])), Command("blockdev-add", overlay("b")),
            Self.reopen(overlay(nil)), Self.reopen(overlay("b")), Self.reopen(overlay("o")), Self.reopen(overlay(nil)), Self.reopen(overlay(.null)),
            Command("blockdev-del", ["node-name": "o"]), Self.reopen(overlay("")), Self.reopen(overlay("nosuch")), Self.reopen(overlay("t")),
            Self.reopen(overlay("b")), Self.reopen(overlay(["driver": "null-co"])), Self.query,
            Self.reopen(overlay("b", ["l2-cache-size": 65536])), Self.reopen(overlay("b", ["cache-size": 1, "l2-cache-size": 65536])),
            Self.reopen(overlay("b", ["l2-cache-entry-size": 512])), Self.reopen(overlay("b", ["l2-cache-entry-size": 513])),
            Self.reopen(overlay("b", ["lazy-refcounts": true, "pass-discard-request": true])), Self.reopen(overlay("b", ["data-file": "b"])),
            Self.reopen(overlay("b", readOnly)), Self.query, Self.reopen(overlay("b")),
            // The file first or last: the whole list counts.
            Self.reopen(Self.file("bf", base), Self.node("qcow2", "b", ["file": "bf", "backing": .null])), Self.query,
            Self.reopen(Self.node("qcow2", "b", ["file": "bf", "read-only": true]), Self.file("bf", base, readOnly)), Self.query,
            Self.reopen(Self.file("tf", top, readOnly), overlay("b", readOnly)), Self.query,
        ])
        // A backing file that the image names belongs to the overlay like one in its definition.
        let inside: JSONValue = ["driver": "file", "filename": .string(top)]
        let below: JSONValue = ["driver": "qcow2", "file": ["driver": "file", "filename": .string(base)]]
        try await Self.compare([
            Command("blockdev-add", Self.node("qcow2", "t", ["file": inside])), Self.reopen(Self.node("qcow2", "t", ["file": inside])),
            Self.reopen(Self.node("qcow2", "t", ["file": inside, "backing": below])), Self.query,
            Self.reopen(Self.node("qcow2", "t", ["file": inside, "backing": ["driver": "qcow2", "read-only": false, "file": ["driver": "file", "filename": .string(base)]]])),
            Self.query, Self.reopen(Self.node("qcow2", "t", ["file": inside, "backing": ["driver": "qcow2", "file": ["driver": "file", "filename": .string(other)]]])),
            Self.reopen(Self.node("qcow2", "t", ["file": inside, "backing": ["driver": "raw", "file": ["driver": "file", "filename": .string(base)]]])),
            Self.reopen(Self.node("qcow2", "t", ["file": inside, "backing": .null])), Self.query,
        ])
    }

    @Test("copy-on-read with a bottom keeps the chain down to there from being cut or led elsewhere, and lets go when it goes")
    func frozenChain() async throws {
        let scratch = try Scratch()
        for (name, below) in [("base", nil), ("mid", "base"), ("top", "mid"), ("other", nil)] as [(String, String?)] {
            let backing = below.map { ["-b", scratch.file($0), "-F", "qcow2"] } ?? []
            try run("qemu-img", ["create", "-q", "-f", "qcow2"] + backing + [scratch.file(name), "1M"])
        }
        func image(_ name: String, _ backing: JSONValue) -> JSONValue {
            Self.node("qcow2", name, ["file": ["driver": "file", "filename": .string(scratch.file(name))], "backing": backing])
        }
        func add(_ options: JSONValue) -> Command { Command("blockdev-add", options) }
        let groups: JSONValue = ["file": "mid", "throttle-group": "g"]
        try await Self.compare([
            add(Self.node("qcow2", "base", ["file": ["driver": "file", "filename": .string(scratch.file("base"))]])),
            add(image("mid", "base")), add(image("top", "mid")), add(image("other", .null)),
            add(Self.node("copy-on-read", "cor", ["file": "top", "bottom": "mid"])),
            Self.reopen(image("top", "base")), Self.reopen(image("top", .null)), Self.reopen(image("top", "other")), Self.reopen(image("top", "mid")),
            // Below the bottom everything may change.
            Self.reopen(image("mid", "other")), Self.reopen(image("mid", .null)), Self.reopen(image("mid", "base")),
            Command("object-add", ["qom-type": "throttle-group", "id": "g"]), add(Self.node("throttle", "x", groups)), Self.reopen(image("top", "x")), Self.query,
            Command("blockdev-del", ["node-name": "cor"]), Self.reopen(image("top", "base")), Self.query,
        ])
        // QEMU's daemon hangs on a bottom that is elsewhere.
        let fixture = try ServiceFixture()
        for name in ["a", "b"] { #expect(await fixture.failure("blockdev-add", Self.node("null-co", name)) == nil) }
        let elsewhere = await fixture.failure("blockdev-add", Self.node("copy-on-read", "c", ["file": "a", "bottom": "b"]))
        #expect(elsewhere == "Bottom node 'b' is not in the chain below node 'c'")
        try await fixture.stop()
    }

    @Test("a failure in any place of the list leaves every node as it was", arguments: 0..<4)
    func allOrNothing(failing: Int) async throws {
        let scratch = try Scratch()
        let fixture = try ServiceFixture()
        let paths = (0..<4).map { scratch.disk("\($0).img", byteCount: 1 << 20) }
        for (index, path) in paths.enumerated() {
            #expect(await fixture.failure("blockdev-add", Self.file("f\(index)", path, ["discard": "unmap"])) == nil)
            #expect(await fixture.failure("blockdev-add", Self.node("raw", "r\(index)", ["file": .string("f\(index)")])) == nil)
        }
        let before = await fixture.execute("query-named-block-nodes")
        // Each kind of failure: in the options, in a driver, when files are opened, in the permissions.
        let failures: [JSONValue] = [
            Self.file("f\(failing)", "elsewhere"),
            Self.node("raw", "r\(failing)", ["file": .string("f\(failing)"), "size": 7]),
            Self.node("raw", "r\(failing)", ["file": .string("f\((failing + 1) % 4)"), "offset": 1_073_741_824]),
        ]
        for failure in failures {
            var list = (0..<4).flatMap { index -> [JSONValue] in
                index == failing
                    ? [failure]
                    : [
                        Self.file("f\(index)", paths[index], ["read-only": true, "cache": ["no-flush": true]]),
                        Self.node("raw", "r\(index)", ["file": .string("f\(index)"), "read-only": true, "offset": 4096]),
                    ]
            }
            for _ in 0..<2 {
                #expect(await fixture.failure("blockdev-reopen", ["options": .array(list)]) != nil)
                #expect(await fixture.execute("query-named-block-nodes") == before)
                list.reverse()
            }
        }
        // One file's driver refuses what it is told; the others are told to become read-only.
        let unusual = (0..<4).map { Self.file("f\($0)", paths[$0], $0 == failing ? ["aio": "native"] : ["read-only": true]) }
        #expect(await fixture.failure("blockdev-reopen", ["options": .array(unusual)]) != nil)
        #expect(await fixture.execute("query-named-block-nodes") == before)
        // And without the failure all of it goes through.
        let good = (0..<4).map { Self.file("f\($0)", paths[$0], ["cache": ["no-flush": true]]) }
        #expect(await fixture.failure("blockdev-reopen", ["options": .array(good)]) == nil)
        #expect(await fixture.execute("query-named-block-nodes") != before)
        try await fixture.stop()
    }

    @Test("an empty list changes nothing; a node that is listed twice is refused (QEMU dies of the one)")
    func oddLists() async throws {
        let fixture = try ServiceFixture()
        #expect(await fixture.failure("blockdev-add", Self.node("null-co", "n")) == nil)
        #expect(await fixture.failure("blockdev-reopen", ["options": []]) == nil)
        #expect(
            await fixture.failure("blockdev-reopen", ["options": [Self.node("null-co", "n"), Self.node("null-co", "n")]]) == "Node 'n' is listed twice")
        try await fixture.stop()
    }
}
