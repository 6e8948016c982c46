import BlockGraph
import DriverTesting
import IOCore
import StorageSchema
import StrataBase
import Testing

@Suite("copy-on-read")
struct CopyOnReadTests {
    /// Three images on top of each other, made by QEMU: the lowest has data in its first MiB and zeroes at 2 MiB, the middle one data behind it.
    private static func makeChain(_ bench: FilterBench, _ name: String) throws -> String {
        let (base, middle, top) = (bench.file(name + "-base"), bench.file(name + "-middle"), bench.file(name + "-top"))
        try run("qemu-img", "create", "-q", "-f", "qcow2", base, "4M")
        try run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 1M", "-c", "write -z 2M 64k", base)
        try run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", middle)
        try run("qemu-io", "-f", "qcow2", "-c", "write -P 2 1M 512k", middle)
        try run("qemu-img", "create", "-q", "-f", "qcow2", "-b", middle, "-F", "qcow2", top)
        return top
    }

    private static func options(_ top: String, bottom: String?) -> BlockdevOptions {
        func image(_ path: String, _ name: String, _ backing: BlockdevRefOrNull) -> BlockdevOptions {
            BlockdevOptions(.qcow2(BlockdevOptionsQcow2(file: .definition(.hostFile(path)), backing: backing)), nodeName: name)
        }
        let stem = top.dropLast("-top".count)
        let base = image(stem + "-base", "base", .null)
        let middle = image(stem + "-middle", "middle", .definition(base))
        let whole = image(top, "top", .definition(middle))
        return BlockdevOptions(.copyOnRead(BlockdevOptionsCor(file: .definition(whole), bottom: bottom)), nodeName: "cor")
    }

    @Test(
        "what is read is copied into the image where QEMU copies it",
        arguments: [
            ([(4096, 4096)], nil), ([(921_600, 204_800)], nil), ([(2 << 20, 65536)], nil), ([(3 << 20, 65536)], nil),
            ([(1 << 20, 65536), (0, 65536)], "base"), ([(1 << 20, 65536), (0, 65536)], "middle"), ([(1 << 20, 65536), (0, 65536)], "top"),
        ] as [([(Int, Int)], String?)])
    func asQEMU(reads: [(Int, Int)], bottom: String?) async throws {
        try await FilterBench.run { bench in
            let (ours, theirs) = (try Self.makeChain(bench, "ours"), try Self.makeChain(bench, "theirs"))
            try await bench.graph.add(Self.options(ours, bottom: bottom))
            let backend = try await bench.graph.makeBackend(named: "reader", on: "cor", PermissionGrant(used: .consistentRead, shared: .all))
            for (offset, count) in reads {
                let expected = (offset..<offset + count).map { $0 < 1 << 20 ? 1 : $0 < 3 << 19 ? 2 : 0 as UInt8 }
                #expect(firstDifference(try await backend.readArray(at: offset, count), expected) == nil)
                // And again, from where it is now.
                #expect(firstDifference(try await backend.readArray(at: offset, count), expected) == nil)
            }
            await bench.graph.release(backend)
            try await bench.graph.remove(nodeNamed: "cor")
            let stem = String(theirs.dropLast("-top".count))
            var image = "driver=copy-on-read,file.driver=qcow2,file.node-name=top,file.file.driver=file,file.file.filename=\(theirs)"
            image += ",file.backing.driver=qcow2,file.backing.node-name=middle,file.backing.file.driver=file,file.backing.file.filename=\(stem)-middle"
            image += ",file.backing.backing.driver=qcow2,file.backing.backing.node-name=base,file.backing.backing.file.driver=file"
            image += ",file.backing.backing.file.filename=\(stem)-base"
            if let bottom { image += ",bottom=\(bottom)" }
            for (offset, count) in reads { try run("qemu-io", "-c", "read \(offset) \(count)", "--image-opts", image) }
            func map(_ path: String) throws -> String {
                // Where in the file a cluster lies is each writer's own affair.
                try run("qemu-img", "map", "--output=json", path).replacing(#/, "offset": \d+/#, with: "")
            }
            #expect(try map(ours) == map(theirs))
            try run("qemu-img", "check", ours)
        }
    }

    @Test("what the options say wrongly is refused in QEMU's words")
    func refusals() async throws {
        try await FilterBench.run { bench in
            let disk = SimulatedDisk(byteCount: 65536)
            defer { disk.retire() }
            try await bench.graph.add(disk.options(named: "disk"))
            try await bench.graph.add(BlockdevOptions(.copyOnRead(BlockdevOptionsCor(file: .reference("disk"))), nodeName: "filter"))
            for (bottom, expected) in [("nope", "Bottom node 'nope' not found"), ("filter", "Bottom node 'filter' is a filter")] {
                let options = BlockdevOptions(.copyOnRead(BlockdevOptionsCor(file: .reference("disk"), bottom: bottom)), nodeName: "other")
                let refusal1 = try await failure { try await bench.graph.add(options) }
                #expect(refusal1 == expected)
            }
            let small = SimulatedDisk(byteCount: 512)
            defer { small.retire() }
            let readOnly = BlockdevOptions(.copyOnRead(BlockdevOptionsCor(file: .definition(small.options()))), nodeName: "r", readOnly: true)
            try await bench.graph.add(readOnly)
            let refusal = try await failure { _ = try await bench.graph.makeBackend(named: "reader", on: "r", PermissionGrant(used: .consistentRead, shared: .all)) }
            #expect(refusal?.contains("is read-only") == true, "\(refusal ?? "")")
        }
    }

    @Test("concurrent readers of one range copy it once, and a write in between is not undone")
    func once() async throws {
        try await FilterBench.run { bench in
            let top = try Self.makeChain(bench, "chain")
            try await bench.graph.add(Self.options(top, bottom: nil))
            let backend = try await bench.writer(on: "cor")
            try await withThrowingTaskGroup(of: Void.self) { tasks in
                for _ in 0..<8 {
                    tasks.addTask {
                        let found = try await backend.readArray(at: 131_072, 65536)
                        #expect(found.allSatisfy { $0 == 1 })
                    }
                }
                try await tasks.waitForAll()
            }
            // Readers and writers of the same bytes, many times: the writer's data stays.
            for round in 0..<14 {
                let offset = 262_144 + round * 65536
                if offset >= 1 << 20 { break }
                try await withThrowingTaskGroup(of: Void.self) { tasks in
                    for _ in 0..<3 {
                        tasks.addTask {
                            let found = try await backend.readArray(at: offset, 65536)
                            #expect(found.allSatisfy { $0 == 1 || $0 == 7 })
                        }
                    }
                    tasks.addTask { try await backend.writeArray([UInt8](repeating: 7, count: 30_000), at: offset + 1000) }
                    try await tasks.waitForAll()
                }
                let after = try await backend.readArray(at: offset, 65536)
                let isRight = after.indices.allSatisfy { after[$0] == ((1000..<31_000).contains($0) ? 7 : 1) }
                #expect(isRight, "round \(round)")
            }
            await bench.graph.release(backend)
            try await bench.graph.remove(nodeNamed: "cor")
            try run("qemu-img", "check", top)
        }
    }
}
