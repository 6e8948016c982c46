import BlockGraph
import Foundation
import IOCore
import QCOW2Testing
import StorageSchema
import StrataBase
import StrataTesting
import Testing

@Suite("internal snapshots of qcow2 images")
struct SnapshotTests {
    /// What an image is supposed to hold: the disk, and what each snapshot keeps.
    struct Model: Sendable {
        var disk: DiskModel
        var kept: [(id: String, name: String, bytes: [UInt8])] = []
    }

    struct Case: Sendable, CustomTestStringConvertible {
        let clusterSize: Int
        let version: Int
        let refcountBits: Int
        let seed: UInt64
        var testDescription: String { "\(clusterSize) bytes per cluster, version \(version), \(refcountBits) refcount bits, seed \(seed)" }
    }

    static let cases: [Case] = [
        Case(clusterSize: 512, version: 3, refcountBits: 16, seed: 1), Case(clusterSize: 512, version: 3, refcountBits: 64, seed: 2),
        Case(clusterSize: 4096, version: 3, refcountBits: 8, seed: 3), Case(clusterSize: 65536, version: 3, refcountBits: 16, seed: 4),
        Case(clusterSize: 4096, version: 2, refcountBits: 16, seed: 5), Case(clusterSize: 1024, version: 3, refcountBits: 4, seed: 6),
    ]

    static func raw(_ path: String, _ scratch: Scratch, snapshot: String? = nil) throws -> [UInt8] {
        let raw = scratch.file("out.raw")
        try run("qemu-img", ["convert", "-O", "raw"] + (snapshot.map { ["-l", "snapshot.id=\($0)"] } ?? []) + [path, raw])
        return [UInt8](try Data(contentsOf: URL(fileURLWithPath: raw)))
    }

    /// Plays random requests and snapshot operations; the model follows.
    static func play(_ graph: BlockGraph, _ disk: BlockBackend, _ start: Model, steps: Int, resizes: Bool) async throws -> Model {
        var model = start
        for number in 0..<steps {
            switch Int.random(in: 0..<14, using: &model.disk.random) {
            case 0...1 where model.kept.count < 6:
                let info = try await graph.createSnapshot(on: "disk", named: "s\(number % 5)", moment: moment(number))
                model.kept.append((info.id, info.name, model.disk.bytes))
            case 2:
                guard let chosen = model.kept.randomElement(using: &model.disk.random) else { continue }
                try await graph.applySnapshot(on: "disk", SnapshotSelector(id: chosen.id, name: chosen.name))
                model.disk.bytes = chosen.bytes
            case 3:
                guard let chosen = model.kept.indices.randomElement(using: &model.disk.random) else { continue }
                let info = try await graph.deleteSnapshot(on: "disk", SnapshotSelector(id: model.kept[chosen].id))
                #expect(info.name == model.kept[chosen].name)
                model.kept.remove(at: chosen)
            case 4 where resizes:
                let size = model.disk.bytes.count + [-512, -3 * model.disk.clusterSize, 512, 5 * model.disk.clusterSize][number % 4]
                guard size > 8 * model.disk.clusterSize else { continue }
                try await disk.resize(to: size)
                if size < model.disk.bytes.count { model.disk.bytes.removeLast(model.disk.bytes.count - size) }
                model.disk.bytes += [UInt8](repeating: 0, count: size - model.disk.bytes.count)
            case 5 where model.disk.clusterSize < 65536:
                let range = model.disk.range(alignment: model.disk.clusterSize)
                let data = CompressedWriteTests.data(range.count, &model.disk)
                try await disk.writeBytes(data, at: range.lowerBound, flags: .compressed)
                model.disk.bytes.replaceSubrange(range, with: data)
            default: _ = try await model.disk.step(disk)
            }
            #expect(disk.length == model.disk.bytes.count)
        }
        let read = try await disk.readBytes(at: 0, model.disk.bytes.count)
        if let difference = firstDifference(read, model.disk.bytes) { throw ToolFailure(description: "the disk differs \(difference)") }
        return model
    }

    @Test("QEMU finds in our snapshots what they were taken of, and not a cluster too many", arguments: cases)
    func history(test: Case) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        let size = min(90 * test.clusterSize + 1536, 3 << 20)
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=\(test.clusterSize),compat=\(test.version == 3 ? "1.1" : "0.10"),refcount_bits=\(test.refcountBits)", path, String(size)])
        var model = Model(disk: DiskModel(size: size, clusterSize: test.clusterSize, seed: test.seed))
        for round in 0..<3 {
            let before = model
            model = try await onContext { context in
                try await withGraph(imageOptions(path, l2CacheSize: 8192), context) { graph, disk in
                    try await Self.play(graph, disk, before, steps: 60, resizes: test.version == 3)
                }
            }
            try run("qemu-img", ["check", path])
            #expect(firstDifference(try Self.raw(path, scratch), model.disk.bytes) == nil)
            for kept in model.kept {
                // QEMU does not give what it converts from a snapshot the snapshot's size.
                let found = try Self.raw(path, scratch, snapshot: kept.id)
                let count = min(found.count, kept.bytes.count)
                #expect(firstDifference(Array(found[..<count]), Array(kept.bytes[..<count])) == nil, "round \(round), snapshot \(kept.id)")
            }
            let list = try await onContext { context in
                try await withGraph(imageOptions(path, readOnly: true), context) { _, disk in try await disk.node.snapshotting?.listSnapshots() ?? [] }
            }
            #expect(list.map(\.id) == model.kept.map(\.id) && list.map(\.name) == model.kept.map(\.name))
            #expect(try Self.listed(path) == Self.summary(list))
            // What is loaded read-only shows the same.
            for kept in model.kept {
                let read = try await onContext { context in
                    try await withGraph(imageOptions(path, readOnly: true), context) { graph, disk in
                        try await graph.loadSnapshot(on: "disk", SnapshotSelector(id: kept.id))
                        return try await disk.readBytes(at: 0, disk.length)
                    }
                }
                #expect(firstDifference(read, kept.bytes) == nil)
            }
        }
    }

    static func summary(_ list: [SnapshotInfo]) -> [String] {
        list.map { "\($0.id) \($0.name) \($0.dateSec).\($0.dateNsec) \($0.vmClockSec).\($0.vmClockNsec) \($0.vmStateSize) \($0.icount.map(String.init) ?? "-")" }
    }

    /// The snapshots of an image as QEMU lists them.
    static func listed(_ path: String) throws -> [String] {
        let text = try run("qemu-img", ["info", "--output=json", path])
        let object = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
        return ((object?["snapshots"] as? [[String: Any]]) ?? []).map { item in
            func number(_ key: String) -> Int { item[key] as? Int ?? 0 }
            return "\(item["id"] as? String ?? "") \(item["name"] as? String ?? "") \(number("date-sec")).\(number("date-nsec")) "
                + "\(number("vm-clock-sec")).\(number("vm-clock-nsec")) \(number("vm-state-size")) \(item["icount"].map { "\($0)" } ?? "-")"
        }
    }

    @Test("snapshots by QEMU are listed, applied and deleted by us, and QEMU's check finds nothing", arguments: [512, 65536], ["1.1", "0.10"])
    func byQEMU(clusterSize: Int, compat: String) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        let size = 40 * clusterSize
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=\(clusterSize),compat=\(compat)", path, String(size)])
        for number in 1...4 {
            try run("qemu-io", ["-f", "qcow2", "-c", "write -P \(number) \(number * 3 * clusterSize) \(8 * clusterSize)", "-c", "write -c -P \(number + 20) \((30 + number) * clusterSize) \(clusterSize)", path])
            try run("qemu-img", ["snapshot", "-c", "q\(number)", path])
        }
        let contents = try (1...4).map { try Self.raw(path, scratch, snapshot: String($0)) }
        let before = try Self.listed(path)
        let list = try await onContext { context in
            try await withGraph(imageOptions(path), context) { graph, disk in
                let list = try await disk.node.snapshotting?.listSnapshots() ?? []
                try await graph.applySnapshot(on: "disk", SnapshotSelector(name: "q2"))
                _ = try await graph.deleteSnapshot(on: "disk", SnapshotSelector(id: "3"))
                _ = try await graph.createSnapshot(on: "disk", named: "ours", moment: moment(1))
                await #expect(throws: BlockError.self) { try await graph.applySnapshot(on: "disk", SnapshotSelector(id: "3")) }
                return list
            }
        }
        #expect(Self.summary(list) == before)
        try run("qemu-img", ["check", path])
        #expect(firstDifference(try Self.raw(path, scratch), contents[1]) == nil)
        for (id, number) in [("1", 0), ("2", 1), ("4", 3), ("5", 1)] { #expect(firstDifference(try Self.raw(path, scratch, snapshot: id), contents[number]) == nil) }
        // And QEMU goes on with it.
        try run("qemu-img", ["snapshot", "-a", "q4", path])
        try run("qemu-img", ["snapshot", "-d", "ours", path])
        try run("qemu-img", ["check", path])
        #expect(firstDifference(try Self.raw(path, scratch), contents[3]) == nil)
    }

    @Test("refcounts that are too narrow for a snapshot leave the image as it was")
    func narrowRefcounts() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=4096,refcount_bits=1", path, "1M"])
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 3 0 100k", path])
        try await onContext { context in
            try await withGraph(imageOptions(path), context) { graph, disk in
                let error = await #expect(throws: BlockError.self) { _ = try await graph.createSnapshot(on: "disk", named: "a", moment: moment(1)) }
                #expect(error?.message == "The image counts references with 1 bits, which is too few for this")
                try await disk.writeBytes([5, 5, 5], at: 200_000)
            }
        }
        try run("qemu-img", ["check", path])
        #expect(try Self.raw(path, scratch)[..<4] == [3, 3, 3, 3])
    }

    @Test("extra data of a record that nobody knows survives new snapshots")
    func extraData() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", path, "1M"])
        try run("qemu-img", ["snapshot", "-c", "old", path])
        var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        let table = bytes[64..<72].reduce(0) { $0 << 8 | Int($1) }
        // 24 bytes of extra data become 40; identifier and name follow.
        bytes[table + 39] = 40
        let text = Array(bytes[(table + 64)..<(table + 68)])
        let unknown = [UInt8](0xa0..<0xb0)
        while bytes.count < table + 128 { bytes.append(0) }
        bytes.replaceSubrange((table + 64)..<(table + 84), with: unknown + text)
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        try await onContext { context in
            try await withGraph(imageOptions(path), context) { graph, _ in _ = try await graph.createSnapshot(on: "disk", named: "new", moment: moment(1)) }
        }
        let after = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        let place = after[64..<72].reduce(0) { $0 << 8 | Int($1) }
        #expect(place != table && Array(after[(place + 64)..<(place + 84)]) == unknown + text)
        #expect(try Self.listed(path).map { $0.split(separator: " ")[1] } == ["old", "new"])
        try run("qemu-img", ["check", path])
    }

    @Test("who forbids snapshots while one is waited for is heard")
    func forbiddenMeanwhile() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", path, "1M"])
        try await onContext { context in
            try await withGraph(imageOptions(path), context) { graph, _ in
                let kept = try await graph.createSnapshot(on: "disk", named: "a", moment: moment(1))
                let (isHolding, mayGoOn) = (AsyncCondition(false), AsyncCondition(false))
                async let holding: Void = graph.withoutChanges {
                    isHolding.update { $0 = true }
                    _ = await mayGoOn.wait { $0 ? true : nil }
                }
                _ = await isHolding.wait { $0 ? true : nil }
                async let forbidding: Void = graph.change { change in change.addBlocker(OperationBlocker([.resize], reason: "a test"), to: "disk") }
                // The change stands in line before the snapshot does.
                for _ in 0..<50 { await Task.yield() }
                async let applying: Void = graph.applySnapshot(on: "disk", SnapshotSelector(id: kept.id))
                for _ in 0..<50 { await Task.yield() }
                mayGoOn.update { $0 = true }
                try await holding
                try await forbidding
                do {
                    try await applying
                    Issue.record("the snapshot was applied")
                } catch { #expect("\(error)".contains("busy"), "\(error)") }
            }
        }
    }

    @Test("a full image of which the refcounts do not fit into the cache gets a snapshot")
    func smallRefcountCache() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", path, "2M"])
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 3 0 2M", path])
        try await onContext { context in
            try await withGraph(imageOptions(path, refcountCacheSize: 2048), context) { graph, disk in
                _ = try await graph.createSnapshot(on: "disk", named: "a", moment: moment(1))
                try await disk.writeBytes([UInt8](repeating: 4, count: 1 << 20), at: 0)
                _ = try await graph.createSnapshot(on: "disk", named: "b", moment: moment(2))
                _ = try await graph.deleteSnapshot(on: "disk", SnapshotSelector(name: "a"))
            }
        }
        #expect(try run("qemu-img", ["check", path]).contains("No errors were found"))
        #expect(try Self.raw(path, scratch) == [UInt8](repeating: 4, count: 1 << 20) + [UInt8](repeating: 3, count: 1 << 20))
    }
}
