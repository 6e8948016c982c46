import Foundation
import ManagedObjects
import QAPIRuntime
import StorageSchema
import StrataBase
import Testing

@Suite("object registry")
struct ObjectRegistryTests {
    private static func simple(_ name: String) -> SimpleAuthorization { SimpleAuthorization(AuthZSimpleProperties(identity: name)) }

    @Test("an object in use is not removed, and the refusal names its user; when the use ends it goes")
    func inUse() throws {
        let registry = ObjectRegistry()
        try registry.add(Self.simple("joe"), id: "a")
        var first = registry.use("a", as: (any Authorization).self, by: "NBD server 'x'")
        let second = try #require(registry.use("a", as: SimpleAuthorization.self, by: "node 'n'"))
        #expect(first?.object.allows("joe") == true)
        var error = #expect(throws: BlockError.self) { try registry.remove("a") }
        #expect(error?.message == "object 'a' is in use, can not be deleted: used by NBD server 'x'" && error?.code == .permissionConflict)
        first = nil
        error = #expect(throws: BlockError.self) { try registry.remove("a") }
        #expect(error?.message == "object 'a' is in use, can not be deleted: used by node 'n'")
        second.end()
        second.end()
        try registry.remove("a")
        #expect(second.object.allows("joe"), "who still holds the object may use it")
        #expect(registry.use("a", as: SimpleAuthorization.self, by: "x") == nil)
        #expect(registry.all.isEmpty)
    }

    @Test("an old use does not touch a new object of the same id")
    func sameID() throws {
        let registry = ObjectRegistry()
        let properties = try IothreadProperties(decoding: [:])
        try registry.add(try IOThread(properties, id: "t"), id: "t")
        let old = try #require(registry.use("t", as: IOThread.self, by: "export 'e'"))
        try registry.remove("t")
        try registry.add(Self.simple("joe"), id: "t")
        let new = registry.use("t", as: SimpleAuthorization.self, by: "node 'n'")
        old.end()
        #expect(throws: BlockError.self) { try registry.remove("t") }
        withExtendedLifetime(new) {}
    }

    @Test("an object of another type is not found")
    func otherType() throws {
        let registry = ObjectRegistry()
        try registry.add(Self.simple("joe"), id: "a")
        #expect(registry.object("a", as: Secret.self) == nil && registry.use("a", as: Secret.self, by: "x") == nil)
        let error = #expect(throws: BlockError.self) { try registry.secret("a") }
        #expect(error?.message == "No secret with id 'a'")
    }

    @Test("secrets are the bytes that base64 stands for, as another program wrote it", arguments: 0..<40)
    func base64(count: Int) throws {
        let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ count) }
        let registry = ObjectRegistry()
        for (id, options) in [("plain", Data.Base64EncodingOptions()), ("lines", .lineLength64Characters)] {
            let text = Data(bytes).base64EncodedString(options: options.union(.endLineWithLineFeed))
            try registry.add(try Secret(SecretProperties(format: .base64, data: text), in: registry), id: id)
            #expect(try registry.secret(id) == bytes)
        }
    }

    @Test("a secret comes from a file to the last byte, and a password must be text")
    func secretFile() throws {
        let path = NSTemporaryDirectory() + "strata-secret-" + UUID().uuidString
        defer { try? FileManager.default.removeItem(atPath: path) }
        let registry = ObjectRegistry()
        try Data("pass\n".utf8).write(to: URL(fileURLWithPath: path))
        try registry.add(try Secret(SecretProperties(file: path), in: registry), id: "text")
        #expect(try registry.password("text") == "pass\n")
        try Data([0xff, 0x00]).write(to: URL(fileURLWithPath: path))
        try registry.add(try Secret(SecretProperties(file: path), in: registry), id: "bytes")
        #expect(try registry.secret("bytes") == [0xff, 0x00])
        let error = #expect(throws: BlockError.self) { try registry.password("bytes") }
        #expect(error?.message == "Data from secret bytes is not valid UTF-8")
    }

    @Test("ids are as node names are", arguments: [("a", true), ("A-1._z", true), ("1a", false), ("", false), ("a/b", false), ("é", false), ("#x", false)])
    func ids(id: String, isGood: Bool) {
        #expect(ObjectRegistry.isWellFormed(id) == isGood)
    }
}
