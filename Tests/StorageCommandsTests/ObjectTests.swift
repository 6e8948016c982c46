import Foundation
import ManagedObjects
import QAPIRuntime
import StorageCommands
import StorageSchema
import StrataBase
import Testing

/// The object model of QEMU's storage daemon and of ours.
@Suite("objects against qemu-storage-daemon")
struct ObjectTests {
    private static func add(_ type: String, _ id: String, _ more: [(String, JSONValue)] = []) -> Conversation.Command {
        var arguments = JSONObject()
        arguments["qom-type"] = .string(type)
        arguments["id"] = .string(id)
        for (key, value) in more { arguments[key] = value }
        return .init("object-add", .object(arguments))
    }

    private static func get(_ path: String, _ property: String) -> Conversation.Command {
        .init("qom-get", ["path": .string(path), "property": .string(property)])
    }

    private static func set(_ path: String, _ property: String, _ value: JSONValue) -> Conversation.Command {
        .init("qom-set", ["path": .string(path), "property": .string(property), "value": value])
    }

    private static func list(_ path: String) -> Conversation.Command { .init("qom-list", ["path": .string(path)]) }

    @Test("I/O threads are made, looked at, changed and removed alike")
    func threads() async throws {
        try await Conversation.compare([
            Self.list("/objects"), Self.add("iothread", "t0"), Self.add("iothread", "t0"), Self.add("nosuch", "x"), Self.add("iothread", "1bad"),
            Self.add("iothread", ""), .init("object-add", ["id": "x"]), .init("object-add", ["qom-type": "iothread"]),
            Self.add("iothread", "t1", [("poll-max-ns", -1)]), Self.add("iothread", "t1", [("aio-max-batch", -1)]),
            Self.add("iothread", "t1", [("thread-pool-max", 0)]), Self.add("iothread", "t1", [("thread-pool-min", 65)]),
            Self.add("iothread", "t1", [("bogus", 1)]),
            Self.add("iothread", "t1", [("poll-max-ns", 5), ("poll-grow", 2), ("poll-shrink", 3), ("thread-pool-min", 1), ("thread-pool-max", 9)]),
            Self.list("/objects"), Self.list("/objects/t1"), Self.list("t1"), Self.list("objects/t1"), Self.list("/objects/"), Self.list("//objects//t1"),
            Self.list("/nosuch"), Self.list("/objects/nosuch"), Self.list("nosuch"), Self.list(""), Self.list("/backend"), Self.list("/objects/t1/x"),
            Self.get("/objects/t0", "poll-max-ns"), Self.get("/objects/t0", "thread-pool-max"), Self.get("t1", "poll-max-ns"), Self.get("t1", "type"),
            Self.get("t1", "nope"), Self.get("/objects/none", "nope"), Self.get("/objects", "t1"), Self.get("/", "objects"), Self.get("/", "type"),
            Self.get("/", "nope"), Self.set("t1", "poll-max-ns", 77), Self.get("t1", "poll-max-ns"), Self.set("t1", "poll-max-ns", "77"),
            Self.set("t1", "poll-max-ns", -1), Self.set("t1", "type", "x"), Self.set("t1", "nope", 1), Self.set("/objects/none", "x", 1),
            Self.set("t1", "thread-pool-min", 100), Self.set("t1", "thread-pool-max", 0), Self.set("t1", "thread-pool-min", -1),
            Self.set("/objects", "type", "x"), Self.set("/objects", "x", 1),
            .init("qom-get", ["path": "t1"]), .init("qom-set", ["path": "t1", "property": "poll-grow"]),
            .init("object-del", ["id": "t0"]), .init("object-del", ["id": "t0"]), .init("object-del", ["id": "/objects"]), Self.list("/objects"),
        ])
    }

    @Test("secrets and authorization are made, looked at and refused alike")
    func secretsAndAuthorization() async throws {
        let scratch = try Scratch()
        let file = scratch.disk("secret", byteCount: 3)
        try await Conversation.compare([
            Self.add("secret", "s0", [("data", "abc")]), Self.add("secret", "s1", [("data", "YWJj"), ("format", "base64")]),
            Self.add("secret", "s2", [("file", .string(file))]), Self.add("secret", "s3"),
            Self.add("secret", "s3", [("data", "a"), ("file", .string(file))]), Self.add("secret", "s3", [("data", "!!!"), ("format", "base64")]),
            Self.add("secret", "s3", [("data", "YWJjZ"), ("format", "base64")]), Self.add("secret", "s4", [("data", "a"), ("keyid", "none")]),
            Self.add("secret", "s4", [("data", "a"), ("format", "hex")]), Self.add("secret", "s4", [("data", "")]),
            Self.get("s0", "data"), Self.get("s0", "format"), Self.get("s1", "format"), Self.get("s0", "file"), Self.get("s2", "file"),
            Self.get("s0", "keyid"), Self.get("s0", "iv"),
            Self.add("authz-simple", "a0", [("identity", "fred")]), Self.add("authz-simple", "a1"), Self.get("a0", "identity"),
            Self.set("a0", "identity", "joe"), Self.get("a0", "identity"), Self.set("a0", "identity", 3),
            Self.add("authz-list", "l0"), Self.get("l0", "policy"), Self.get("l0", "rules"),
            Self.add("authz-list", "l1", [("policy", "allow"), ("rules", [["match": "f", "policy": "deny"], ["match": "*x", "policy": "allow", "format": "glob"]])]),
            Self.get("l1", "rules"), Self.get("l1", "policy"), Self.set("l1", "policy", "deny"), Self.get("l1", "policy"),
            Self.set("l1", "rules", [["match": "a", "policy": "allow"]]), Self.get("l1", "rules"), Self.set("l1", "rules", 3),
            Self.set("l1", "policy", "x"), Self.add("authz-list", "l2", [("policy", "maybe")]), Self.list("/objects"), Self.list("l1"), Self.list("s0"),
        ])
    }

    @Test("types have the same properties, and unknown ones are refused alike")
    func typeProperties() async throws {
        let types = [
            "iothread", "secret", "secret_common", "authz-list", "authz-simple", "authz-list-file", "authz", "event-loop-base", "object", "container",
            "user-creatable", "interface", "nosuch", "",
        ]
        try await Conversation.compare(types.map { .init("qom-list-properties", ["typename": .string($0)]) })
    }

    @Test("every type that is listed is one of QEMU's, under the same parent, and of ours none is missing")
    func types() async throws {
        for arguments: JSONValue in [
            [:], ["abstract": true], ["implements": "user-creatable"], ["implements": "user-creatable", "abstract": true], ["implements": "authz"],
            ["implements": "nosuch"], ["implements": "object"], ["implements": "iothread"],
        ] {
            let command = Conversation.Command("qom-list-types", arguments)
            let theirs = try Set(#require(Conversation.askQEMU([command]).first?["return"]?.array))
            let ours = try Set(#require(try await Conversation.askOurs([command]).first?["return"]?.array))
            #expect(ours.isSubset(of: theirs), "\(arguments): \(ours.subtracting(theirs))")
            let notYet: Set = ["chardev", "qio", "tls-creds", "pr-manager", "main-loop", "thread-context", "secret_keyring", "throttle-group"]
            for type in theirs.subtracting(ours) {
                let name = try #require(type["name"]?.string)
                #expect(notYet.contains { name.hasPrefix($0) }, "\(arguments): \(name) is missing")
            }
        }
    }

    @Test("a change that is refused changes nothing; QEMU keeps the refused number")
    func refusedChange() async throws {
        let answers = try await Conversation.askOurs([
            Self.add("iothread", "t", [("thread-pool-min", 1)]), Self.set("t", "thread-pool-min", 100), Self.get("t", "thread-pool-min"),
        ])
        #expect(answers[1]["error"]?["desc"] == "bad thread-pool-min/thread-pool-max values")
        #expect(answers[2] == ["return": 1])
    }

    @Test("a secret that openssl has encrypted with another is read, and a wrong key, vector or length is found out")
    func encryptedSecrets() async throws {
        let scratch = try Scratch()
        let (key, other, vector) = ([UInt8](0..<32), [UInt8](repeating: 7, count: 32), [UInt8](100..<116))
        func hex(_ bytes: [UInt8]) -> String { bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined() }
        try Data("sesame".utf8).write(to: URL(fileURLWithPath: scratch.file("plain")))
        try run("openssl", ["enc", "-aes-256-cbc", "-K", hex(key), "-iv", hex(vector), "-in", scratch.file("plain"), "-out", scratch.file("cipher")])
        let cipher = try Data(contentsOf: URL(fileURLWithPath: scratch.file("cipher"))).base64EncodedString()
        let fixture = try ServiceFixture()
        let registry = fixture.service.objects
        func make(_ id: String, _ text: String, _ key: String? = nil, _ iv: String? = nil) throws {
            try ObjectCatalog.add(ObjectOptions(.secret(SecretProperties(format: .base64, keyid: key, iv: iv, data: text)), id: id), to: registry)
        }
        try make("key", Data(key).base64EncodedString())
        try make("other", Data(other).base64EncodedString())
        try make("good", cipher, "key", Data(vector).base64EncodedString())
        #expect(try registry.password("good") == "sesame")
        #expect(throws: BlockError.self) { try make("bad", cipher, "other", Data(vector).base64EncodedString()) }
        #expect(throws: BlockError.self) { try make("bad", cipher, "key") }
        #expect(throws: BlockError.self) { try make("bad", cipher, "key", Data(vector.dropLast()).base64EncodedString()) }
        #expect(throws: BlockError.self) { try make("bad", "YWJj", "key", Data(vector).base64EncodedString()) }
        try await fixture.stop()
    }

    @Test("rules in a file, which QEMU cannot be given over QMP, work")
    func oursAlone() async throws {
        let scratch = try Scratch()
        let path = scratch.file("rules")
        try Data(#"{"policy": "allow"}"#.utf8).write(to: URL(fileURLWithPath: path))
        let fixture = try ServiceFixture()
        #expect(await fixture.execute("object-add", ["qom-type": "authz-listfile", "id": "f", "filename": .string(path)]) == ["return": [:]])
        #expect(await fixture.execute("qom-get", ["path": "f", "property": "refresh"]) == ["return": true])
        #expect(await fixture.execute("qom-get", ["path": "f", "property": "type"]) == ["return": "authz-list-file"])
        let missing = await fixture.execute("object-add", ["qom-type": "authz-listfile", "id": "g", "filename": .string(path + "x")])
        #expect(missing["error"]?["desc"]?.string?.contains("\(path)x") == true)
        #expect(await fixture.execute("object-add", ["qom-type": "secret", "id": "k", "data": "x"]) == ["return": [:]])
        let changed = await fixture.execute("qom-set", ["path": "k", "property": "data", "value": "y"])
        #expect(changed["error"]?["desc"] == "Property 'secret.data' is not writable")
        try await fixture.stop()
    }
}
