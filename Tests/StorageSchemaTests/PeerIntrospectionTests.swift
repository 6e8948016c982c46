import Foundation
import QAPIRuntime
import StorageSchema
import Testing

/// What a program answers to query-qmp-schema, with the types looked up by name.
private struct Interface {
    let entities: [String: JSONValue]

    init(_ answer: JSONValue) {
        entities = Dictionary(
            (answer.array ?? []).compactMap { entity in entity["name"]?.string.map { ($0, entity) } },
            uniquingKeysWith: { first, _ in first })
    }

    /// The interface of the installed qemu-storage-daemon; nil where there is none.
    static func ofPeer() throws -> Interface? {
        let program = URL(fileURLWithPath: "/usr/bin/qemu-storage-daemon")
        guard FileManager.default.isExecutableFile(atPath: program.path) else { return nil }
        let process = Process()
        process.executableURL = program
        process.arguments = ["--chardev", "stdio,id=c", "--monitor", "c"]
        let (input, output) = (Pipe(), Pipe())
        process.standardInput = input
        process.standardOutput = output
        try process.run()
        try input.fileHandleForWriting.write(
            contentsOf: Data(#"{"execute":"qmp_capabilities"}{"execute":"query-qmp-schema","id":1}{"execute":"quit"}"#.utf8))
        let bytes = try output.fileHandleForReading.readToEnd() ?? Data()
        process.waitUntilExit()
        var results: [Result<JSONValue, JSONError>] = []
        var parser = JSONStreamParser()
        parser.feed(bytes, into: &results)
        for case .success(let message) in results where message["id"] == 1 { return message["return"].map(Interface.init) }
        return nil
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
    /// Members and values of the peer's that we do not have.
    var missing: Set<String> = []
    private var seen: Set<String> = []

    init(ours: Interface, theirs: Interface) {
        self.ours = ours
        self.theirs = theirs
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
            for value in peerValues.subtracting(mineValues) { missing.insert("\(path)=\(value)") }
        case "object": compareObjects(mine, a, peer, b, path)
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
        for name in peerMembers.keys where mineMembers[name] == nil { missing.insert("\(path).\(name)") }
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

    @Test("our interface is part of qemu-storage-daemon's, member by member")
    func partOfPeers() throws {
        guard let theirs = try Interface.ofPeer() else { return }
        let ours = Interface(StorageSchemaTable.introspection)
        var comparison = Comparison(ours: ours, theirs: theirs)
        // QEMU has these in its system emulator alone.
        let beyondPeer = ["add-fd", "query-fdsets", "remove-fd"]
        for name in StorageSchemaTable.commandNames + StorageSchemaTable.events where !beyondPeer.contains(name) {
            guard let a = ours.entities[name], let b = theirs.entities[name] else {
                comparison.differences.append("\(name) is ours alone")
                continue
            }
            for key in ["arg-type", "ret-type"] {
                guard let mine = a[key]?.string, let peer = b[key]?.string else { continue }
                comparison.compare(mine, peer, at: key == "ret-type" ? "\(name) returns" : name)
            }
        }
        #expect(comparison.differences.sorted() == [])
        // Drivers, export types and object types that do not exist yet have many members; only their names count here.
        let enumerations = [
            "blockdev-add.driver=", "block-export-add.type=", "object-add.qom-type=",
            "query-named-block-nodes returns[].image.format-specific.type=",
        ]
        let unknown = comparison.missing.filter { missing in !enumerations.contains { missing.hasPrefix($0) } }
        #expect(
            unknown.sorted() == [
                "blockdev-add<qcow2>.encrypt", "query-named-block-nodes returns[].image.format-specific<qcow2>.data.encrypt",
            ])
    }
}
