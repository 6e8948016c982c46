import Foundation
import QAPIRuntime
import StorageSchema
import StrataTesting
import Testing

/// What a program answers to query-qmp-schema, with the types looked up by name.
private struct Interface {
    let entities: [String: JSONValue]

    init(_ answer: JSONValue) {
        entities = Dictionary(
            (answer.array ?? []).compactMap { entity in entity["name"]?.string.map { ($0, entity) } },
            uniquingKeysWith: { first, _ in first })
        roots = (answer.array ?? []).compactMap { entity in
            guard let name = entity["name"]?.string, let metaType = entity["meta-type"]?.string else { return nil }
            return metaType == "command" || metaType == "event" ? (name, metaType) : nil
        }
    }

    /// The interface of the installed qemu-storage-daemon.
    static func ofPeer() throws -> Interface {
        let questions = #"{"execute":"qmp_capabilities"}{"execute":"query-qmp-schema","id":1}{"execute":"quit"}"#
        let said = try run("qemu-storage-daemon", ["--chardev", "stdio,id=c", "--monitor", "c"], input: Data(questions.utf8))
        var results: [Result<JSONValue, JSONError>] = []
        var parser = JSONStreamParser()
        parser.feed(said.output, into: &results)
        let answers = results.compactMap { try? $0.get() }
        return Interface(try #require(answers.first { $0["id"] == 1 }?["return"], "qemu-storage-daemon describes itself"))
    }

    /// Commands and events, in the order of the answer.
    let roots: [(name: String, metaType: String)]

    /// A name for every type that stays the same as long as the interface does: how it is first reached.
    func paths() -> [String: String] {
        var paths: [String: String] = [:]
        var pending: [(type: String, path: String)] = []
        for root in roots {
            if let type = entities[root.name]?["arg-type"]?.string { pending.append((type, root.name)) }
            if let type = entities[root.name]?["ret-type"]?.string { pending.append((type, "\(root.name) returns")) }
        }
        var next = 0
        while next < pending.count {
            let (type, path) = pending[next]
            next += 1
            guard paths[type] == nil, let entity = entities[type] else { continue }
            paths[type] = path
            if let element = entity["element-type"]?.string { pending.append((element, "\(path)[]")) }
            for member in entity["members"]?.array ?? [] {
                guard let type = member["type"]?.string else { continue }
                pending.append((type, member["name"]?.string.map { "\(path).\($0)" } ?? path))
            }
            for variant in entity["variants"]?.array ?? [] {
                guard let type = variant["type"]?.string, let value = variant["case"]?.string else { continue }
                pending.append((type, "\(path)<\(value)>"))
            }
        }
        return paths
    }

    func members(_ type: String) -> [String: JSONValue] {
        Dictionary(
            (entities[type]?["members"]?.array ?? []).compactMap { member in member["name"]?.string.map { ($0, member) } },
            uniquingKeysWith: { first, _ in first })
    }
}

/// Walks both interfaces in step and collects where ours is not what a client of the peer's may rely on.
private struct Comparison {
    let ours: Interface
    let theirs: Interface
    var differences: [String] = []
    /// Parts of the peer's that we do not have, by the peer's own name for the type.
    var missing: Set<String> = []
    private let peerPaths: [String: String]
    private var seen: Set<String> = []

    init(ours: Interface, theirs: Interface) {
        self.ours = ours
        self.theirs = theirs
        peerPaths = theirs.paths()
    }

    private mutating func miss(_ part: String, of peer: String) { missing.insert("\(peerPaths[peer] ?? peer)\(part)") }

    private mutating func compareFeatures(_ a: JSONValue, _ b: JSONValue, _ name: String) {
        let mine = Set((a["features"]?.array ?? []).compactMap(\.string))
        let theirs = Set((b["features"]?.array ?? []).compactMap(\.string))
        for feature in mine.subtracting(theirs) { differences.append("\(name): feature '\(feature)' is ours alone") }
        for feature in theirs.subtracting(mine) { missing.insert("\(name) +\(feature)") }
    }

    /// Compares everything, from the commands and events on.
    mutating func run() {
        for (name, metaType) in theirs.roots where ours.entities[name] == nil { missing.insert("\(metaType) \(name)") }
        for (name, _) in ours.roots {
            guard let a = ours.entities[name], let b = theirs.entities[name] else {
                differences.append("\(name) is ours alone")
                continue
            }
            compareFeatures(a, b, name)
            if a["allow-oob"] != b["allow-oob"] { differences.append("\(name): out of band on one side only") }
            for key in ["arg-type", "ret-type"] {
                guard let mine = a[key]?.string, let peer = b[key]?.string else { continue }
                compare(mine, peer, at: key == "ret-type" ? "\(name) returns" : name)
            }
        }
    }

    mutating func compare(_ mine: String, _ peer: String, at path: String) {
        guard seen.insert("\(mine) \(peer)").inserted else { return }
        guard let a = ours.entities[mine], let b = theirs.entities[peer], let kind = a["meta-type"]?.string else {
            differences.append("\(path): unknown type")
            return
        }
        guard b["meta-type"]?.string == kind else {
            differences.append("\(path): \(kind) against \(b["meta-type"]?.string ?? "")")
            return
        }
        switch kind {
        case "builtin":
            if a["json-type"] != b["json-type"] { differences.append("\(path): \(a["json-type"] ?? nil) against \(b["json-type"] ?? nil)") }
        case "array": compare(a["element-type"]?.string ?? "", b["element-type"]?.string ?? "", at: "\(path)[]")
        case "enum":
            let (mineValues, peerValues) = (Set(ours.members(mine).keys), Set(theirs.members(peer).keys))
            for value in mineValues.subtracting(peerValues) { differences.append("\(path): value '\(value)' is ours alone") }
            for value in peerValues.subtracting(mineValues) { miss("=\(value)", of: peer) }
        case "object":
            compareFeatures(a, b, peerPaths[peer] ?? peer)
            compareObjects(mine, a, peer, b, path)
        case "alternate":
            for member in a["members"]?.array ?? [] {
                let type = member["type"]?.string ?? ""
                let metaType = ours.entities[type]?["meta-type"]
                let match = (b["members"]?.array ?? []).first { candidate in
                    let name = candidate["type"]?.string ?? ""
                    return theirs.entities[name]?["meta-type"] == metaType && (metaType != "builtin" || name == type)
                }
                guard let other = match?["type"]?.string else {
                    differences.append("\(path): alternative '\(type)' is ours alone")
                    continue
                }
                compare(type, other, at: path)
            }
        default: break
        }
    }

    private mutating func compareObjects(_ mine: String, _ a: JSONValue, _ peer: String, _ b: JSONValue, _ path: String) {
        let (mineMembers, peerMembers) = (ours.members(mine), theirs.members(peer))
        for (name, member) in mineMembers {
            guard let other = peerMembers[name] else {
                differences.append("\(path).\(name) is ours alone")
                continue
            }
            if (member["default"] == nil) != (other["default"] == nil) { differences.append("\(path).\(name): optional on one side only") }
            compare(member["type"]?.string ?? "", other["type"]?.string ?? "", at: "\(path).\(name)")
        }
        for name in peerMembers.keys where mineMembers[name] == nil { miss(".\(name)", of: peer) }
        if a["tag"] != b["tag"] { differences.append("\(path): the tags differ") }
        for variant in a["variants"]?.array ?? [] {
            guard let value = variant["case"]?.string, let other = b["variants"]?.array?.first(where: { $0["case"]?.string == value })
            else { continue }
            compare(variant["type"]?.string ?? "", other["type"]?.string ?? "", at: "\(path)<\(value)>")
        }
    }
}

@Suite("Introspection")
struct PeerIntrospectionTests {

    @Test("what we describe is what our types decode: every type that is named is there")
    func closed() {
        let interface = Interface(StorageSchemaTable.introspection)
        #expect(interface.entities.count > 80)
        for entity in interface.entities.values {
            var types = ["arg-type", "ret-type", "element-type"].compactMap { entity[$0]?.string }
            for member in (entity["members"]?.array ?? []) + (entity["variants"]?.array ?? []) {
                if let type = member["type"]?.string { types.append(type) }
            }
            for type in types where interface.entities[type] == nil { Issue.record("type '\(type)' is not described") }
            #expect(throws: Never.self) { try SchemaInfo(decoding: entity) }
        }
    }

    /// The parts of qemu-storage-daemon's interface that do not exist here yet, one a line: commands, events, and members, values and
    /// features by how they are first reached. `STRATA_WRITE_LISTS=1` in the environment writes the file anew.
    private static let list = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/") + "/not-yet-implemented.txt"

    @Test("our interface is part of qemu-storage-daemon's, and what is missing is exactly what the list names")
    func partOfPeers() throws {
        var comparison = Comparison(ours: Interface(StorageSchemaTable.introspection), theirs: try Interface.ofPeer())
        comparison.run()
        // Docs/Compatibility.md says why.
        let beyondPeer = [
            "add-fd is ours alone", "block-latency-histogram-set is ours alone", "blockdev-add<nbd>.multi-conn is ours alone", "query-fdsets is ours alone", "remove-fd is ours alone",
            "trace-event-get-state is ours alone", "trace-event-set-state is ours alone",
        ]
        #expect(comparison.differences.sorted() == beyondPeer)
        let missing = comparison.missing.sorted()
        if ProcessInfo.processInfo.environment["STRATA_WRITE_LISTS"] != nil {
            try (missing.joined(separator: "\n") + "\n").write(toFile: Self.list, atomically: true, encoding: .utf8)
        }
        let listed = try String(contentsOfFile: Self.list, encoding: .utf8).split(separator: "\n").map(String.init)
        for part in Set(listed).subtracting(missing).sorted() { Issue.record("'\(part)' exists by now: take it off the list") }
        for part in Set(missing).subtracting(listed).sorted() { Issue.record("'\(part)' is missing, but not listed") }
        #expect(listed == listed.sorted())
    }
}
