import Foundation
import StrataTesting
import Testing

@Suite("quorum")
struct QuorumTests {
    struct Scenario: Sendable, CustomTestStringConvertible {
        let testDescription: String
        /// What each child is full of.
        var contents: [UInt8] = [1, 1, 1]
        /// Rules for children by position.
        var rules: [Int: JSON] = [:]
        var options: [String: JSON] = ["vote-threshold": 2]
        var io: [String]
    }

    private static func failing(_ kind: String, _ errno: Int) -> JSON { [["event": "none", "iotype": .string(kind), "errno": .integer(errno)]] }

    static let scenarios: [Scenario] = [
        Scenario(testDescription: "all agree", io: ["read -P 1 0 4k", "write -P 5 100 5000", "read -P 5 100 5000"]),
        Scenario(testDescription: "one differs", contents: [1, 1, 2], io: ["read -P 1 512 4k"]),
        Scenario(testDescription: "the first differs", contents: [2, 1, 1], io: ["read -P 1 1000 100"]),
        Scenario(testDescription: "rewriting", contents: [1, 2, 1], options: ["vote-threshold": 2, "rewrite-corrupted": true], io: ["read -P 1 0 4k", "read -P 1 0 4k"]),
        Scenario(testDescription: "all differ", contents: [1, 2, 3], io: ["read 0 4k"]),
        Scenario(testDescription: "equal votes", contents: [1, 2], options: ["vote-threshold": 1], io: ["read -P 2 0 4k"]),
        Scenario(testDescription: "equal votes of three", contents: [1, 2, 3], options: ["vote-threshold": 1], io: ["read -P 3 0 4k"]),
        Scenario(testDescription: "more votes than one", contents: [1, 2, 2, 3], options: ["vote-threshold": 2], io: ["read -P 2 0 4k"]),
        Scenario(testDescription: "one cannot be read", rules: [2: failing("read", 5)], io: ["read -P 1 0 4k"]),
        Scenario(testDescription: "the first cannot be read", rules: [0: failing("read", 5)], io: ["read -P 1 0 4k"]),
        Scenario(testDescription: "two cannot be read", rules: [1: failing("read", 5), 2: failing("read", 5)], io: ["read 0 4k"]),
        Scenario(testDescription: "one cannot be written", rules: [2: failing("write", 28)], io: ["write -P 9 0 4k"]),
        Scenario(testDescription: "two cannot be written", rules: [1: failing("write", 28), 2: failing("write", 28)], io: ["write -P 9 0 4k"]),
        Scenario(testDescription: "two reasons", rules: [1: failing("write", 28), 2: failing("write", 5)], io: ["write -P 9 0 4k"]),
        Scenario(testDescription: "two reasons, the other way round", rules: [1: failing("write", 5), 2: failing("write", 28)], io: ["write -P 9 0 4k"]),
        Scenario(testDescription: "one cannot be flushed", rules: [2: failing("flush", 28)], io: ["write -P 9 0 4k"]),
        Scenario(testDescription: "two cannot be flushed", rules: [1: failing("flush", 28), 2: failing("flush", 28)], io: ["write -f -P 9 0 4k"]),
        Scenario(testDescription: "zeroes", rules: [2: failing("write-zeroes", 28)], io: ["write -z 0 4k", "read -P 0 0 512"]),
        Scenario(testDescription: "fifo", contents: [1, 2, 1], options: ["vote-threshold": 2, "read-pattern": "fifo"], io: ["read -P 1 0 4k"]),
        Scenario(
            testDescription: "fifo, the first fails", contents: [1, 2, 1], rules: [0: failing("read", 28)],
            options: ["vote-threshold": 2, "read-pattern": "fifo"], io: ["read -P 2 0 4k"]),
        Scenario(
            testDescription: "fifo, all fail", rules: [0: failing("read", 28), 1: failing("read", 28), 2: failing("read", 5)],
            options: ["vote-threshold": 2, "read-pattern": "fifo"], io: ["read 0 4k"]),
        Scenario(testDescription: "one child", contents: [1], options: ["vote-threshold": 1], io: ["read -P 1 0 4k", "write -P 3 0 4k", "map"]),
        Scenario(testDescription: "what cannot work: no votes", options: ["vote-threshold": 0], io: []),
        Scenario(testDescription: "what cannot work: negative votes", options: ["vote-threshold": -1], io: []),
        Scenario(testDescription: "what cannot work: too many votes", options: ["vote-threshold": 4], io: []),
        Scenario(testDescription: "what cannot work: no children", contents: [], options: ["vote-threshold": 1], io: []),
        Scenario(testDescription: "what cannot work: verifying three", options: ["vote-threshold": 2, "blkverify": true], io: []),
        Scenario(testDescription: "what cannot work: verifying with one vote", contents: [1, 1], options: ["vote-threshold": 1, "blkverify": true], io: []),
        Scenario(
            testDescription: "what cannot work: verifying and rewriting", contents: [1, 1],
            options: ["vote-threshold": 2, "blkverify": true, "rewrite-corrupted": true], io: []),
        Scenario(
            testDescription: "fifo takes no notice of verifying and rewriting", contents: [1, 2],
            options: ["vote-threshold": 2, "blkverify": true, "rewrite-corrupted": true, "read-pattern": "fifo"], io: ["read -P 1 0 4k"]),
    ]

    @Test("answers, events and contents are QEMU's", arguments: scenarios)
    func same(scenario: Scenario) throws {
        var session = TwinSession(io: scenario.io)
        var children: [JSON] = []
        for (index, byte) in scenario.contents.enumerated() {
            session.files["child\(index)"] = [UInt8](repeating: byte, count: 65536)
            session.inspected.append("child\(index)")
            var child: JSON = ["driver": "file", "node-name": .string("file\(index)"), "filename": .string("child\(index)")]
            if let rules = scenario.rules[index] {
                child = ["driver": "blkdebug", "node-name": .string("broken\(index)"), "inject-error": rules, "image": child]
            }
            children.append(child)
        }
        var quorum: [String: JSON] = ["driver": "quorum", "node-name": "top", "children": .array(children)]
        for (key, value) in scenario.options { quorum[key] = value }
        session.nodes = [.object(quorum)]
        try session.expectSame()
    }

    @Test("children of different lengths are refused by name")
    func lengths() throws {
        let folder = try TemporaryFolder()
        try folder.write([UInt8](repeating: 0, count: 4096), to: "short")
        try folder.write([UInt8](repeating: 0, count: 8192), to: "long")
        let daemon = try StorageDaemon(.ours, in: folder)
        let refusal = try daemon.add([
            "driver": "quorum", "node-name": "top", "vote-threshold": 1,
            "children": [["driver": "file", "node-name": "a", "filename": "long"], ["driver": "file", "node-name": "b", "filename": "short"]],
        ])
        #expect(refusal?.contains("'b'") == true && refusal?.contains("4096") == true)
        try daemon.quit()
    }
}
