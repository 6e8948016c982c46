import Foundation
import ManagedObjects
import QAPIRuntime
import StorageSchema
import StrataBase
import Testing

@Suite("authorization")
struct AuthorizationTests {
    private static func list(_ json: JSONValue) throws -> ListAuthorization { ListAuthorization(try AuthZListProperties(decoding: json)) }

    @Test("the first rule that matches decides, and the policy when none does")
    func firstRuleDecides() throws {
        let list = try Self.list([
            "policy": "deny",
            "rules": [
                ["match": "CN=bad*", "policy": "deny", "format": "glob"], ["match": "CN=b*", "policy": "allow", "format": "glob"],
                ["match": "CN=a?c", "policy": "allow", "format": "glob"], ["match": "CN=*", "policy": "allow"],
            ],
        ])
        #expect(!list.allows("CN=badger") && list.allows("CN=bee") && list.allows("CN=abc") && !list.allows("CN=ac"))
        #expect(list.allows("CN=*") && !list.allows("CN=x"), "a star in an exact rule is a star")
        #expect(!(try Self.list([:])).allows("anybody"))
        #expect(try Self.list(["policy": "allow"]).allows("anybody"))
    }

    @Test("names are compared byte for byte")
    func bytes() throws {
        let composed = "caf\u{e9}", decomposed = "cafe\u{301}"
        let simple = SimpleAuthorization(AuthZSimpleProperties(identity: composed))
        #expect(simple.allows(composed) && !simple.allows(decomposed))
        #expect(!(try Self.list(["rules": [["match": .string(composed), "policy": "allow"]]])).allows(decomposed))
    }

    @Test("patterns match what the C library's fnmatch matches", arguments: [1, 2, 3])
    func patterns(seed: UInt64) throws {
        var state = seed
        func random(_ limit: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % limit
        }
        for _ in 0..<3000 {
            let pattern = String((0..<random(7)).map { _ in "ab*?"[String.Index(utf16Offset: random(4), in: "ab*?")] })
            let text = String((0..<random(8)).map { _ in "ab"[String.Index(utf16Offset: random(2), in: "ab")] })
            let list = try Self.list(["rules": [["match": .string(pattern), "policy": "allow", "format": "glob"]]])
            #expect(list.allows(text) == (fnmatch(pattern, text, 0) == 0), "'\(pattern)' and '\(text)', seed \(seed)")
        }
    }

    @Test("a pattern full of stars takes no longer than its length warrants")
    func stars() throws {
        let pattern = String(repeating: "*a", count: 200) + "b"
        let list = try Self.list(["rules": [["match": .string(pattern), "policy": "allow", "format": "glob"]]])
        #expect(!list.allows(String(repeating: "a", count: 2000)))
    }

    @Test("rules in a file are read again when it changes, and a file that cannot be read lets nobody in")
    func file() throws {
        let path = NSTemporaryDirectory() + "strata-authz-" + UUID().uuidString
        defer { try? FileManager.default.removeItem(atPath: path) }
        func write(_ text: String) throws { try Data(text.utf8).write(to: URL(fileURLWithPath: path), options: .atomic) }
        try write(#"{"rules": [{"match": "joe", "policy": "allow"}]}"#)
        let watching = try FileAuthorization(AuthZListFileProperties(filename: path))
        let fixed = try FileAuthorization(AuthZListFileProperties(filename: path, refresh: false))
        #expect(watching.allows("joe") && !watching.allows("ann"))
        try write(#"{"rules": [{"match": "ann", "policy": "allow"}]}"#)
        #expect(!watching.allows("joe") && watching.allows("ann"))
        try write("nonsense")
        #expect(!watching.allows("joe") && !watching.allows("ann"))
        try FileManager.default.removeItem(atPath: path)
        #expect(!watching.allows("ann"))
        #expect(fixed.allows("joe") && !fixed.allows("ann"))
        try write(#"{"policy": "allow"}"#)
        #expect(watching.allows("ann"))
        let error = #expect(throws: BlockError.self) {
            try write(#"{"policy": "maybe"}"#)
            _ = try FileAuthorization(AuthZListFileProperties(filename: path))
        }
        #expect(error?.message == "Rules in '\(path)': Parameter 'policy' does not accept value 'maybe'")
    }
}
