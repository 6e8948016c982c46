import BlockGraph
import DriverTesting
import Foundation
import IOCore
import StorageSchema
import StrataBase
import Testing

@Suite("preallocate")
struct PreallocateTests {
    private static func size(_ path: String) throws -> Int {
        try #require(FileManager.default.attributesOfItem(atPath: path)[.size] as? Int)
    }

    private static func options(_ path: String, align: Int? = nil, size: Int? = nil) -> BlockdevOptions {
        let file = BlockdevOptions.hostFile(path)
        let filter = BlockdevOptions(.preallocate(BlockdevOptionsPreallocate(file: .definition(file), preallocAlign: align, preallocSize: size)))
        return BlockdevOptions(.qcow2(BlockdevOptionsQcow2(file: .definition(filter), backing: .null)), nodeName: "image")
    }

    @Test("a growing image reserves space in large steps, and ends where it has to when it is closed")
    func image() async throws {
        try await FilterBench.run { bench in
            let path = bench.file("image")
            try run("qemu-img", "create", "-q", "-f", "qcow2", path, "1G")
            try await bench.graph.add(Self.options(path))
            let backend = try await bench.writer(on: "image")
            try await backend.writeArray([UInt8](repeating: 5, count: 65536), at: 0)
            // 128 MiB and a little, in whole MiB: qemu-io of 10.0.2 has 135266304 bytes at this moment. Our qcow2 asks for a little more at a time.
            let reserved = try Self.size(path)
            #expect(reserved >= 135_266_304 && reserved <= 137_363_456 && reserved % (1 << 20) == 0, "\(reserved)")
            try await backend.writeArray([UInt8](repeating: 6, count: 65536), at: 65536)
            #expect(try Self.size(path) == reserved)
            await bench.graph.release(backend)
            try await bench.graph.remove(nodeNamed: "image")
            #expect(try Self.size(path) < 1 << 20)
            try run("qemu-img", "check", path)
            try run("qemu-io", "-f", "qcow2", "-c", "read -P 5 0 64k", "-c", "read -P 6 64k 64k", path)
        }
    }

    @Test("the reservation goes when the last writer leaves, and comes again with the next")
    func writers() async throws {
        try await FilterBench.run { bench in
            let path = bench.emptyFile("disk")
            let filter = BlockdevOptionsPreallocate(file: .definition(.hostFile(path)), preallocAlign: 65536, preallocSize: 1 << 20)
            try await bench.graph.add(BlockdevOptions(.preallocate(filter), nodeName: "p"))
            for round in 1...3 {
                let backend = try await bench.writer(on: "p", [.consistentRead, .write, .resize])
                try await backend.writeArray([UInt8](repeating: UInt8(round), count: 10_240), at: (round - 1) * 10_240)
                let expected = (round * 10_240 + (1 << 20)).dividedRoundingUp(by: 65536) * 65536
                #expect(try Self.size(path) == expected)
                #expect(backend.length == round * 10_240)
                // Zeroes in what is reserved need no writing.
                await bench.graph.release(backend)
                #expect(try Self.size(path) == round * 10_240)
            }
            let bytes = try [UInt8](Data(contentsOf: URL(fileURLWithPath: path)))
            #expect(bytes.indices.allSatisfy { Int(bytes[$0]) == $0 / 10_240 + 1 })
        }
    }

    @Test("a reservation that cannot be given back is still no part of the disk, and goes when that works again")
    func failedReturn() async throws {
        try await FilterBench.run { bench in
            let disk = SimulatedDisk(byteCount: 512)
            defer { disk.retire() }
            let filter = BlockdevOptionsPreallocate(file: .definition(disk.options()), preallocAlign: 65536, preallocSize: 0)
            try await bench.graph.add(BlockdevOptions(.preallocate(filter), nodeName: "p"))
            let backend = try await bench.writer(on: "p", [.consistentRead, .write, .resize])
            try await backend.writeArray([UInt8](repeating: 3, count: 1024), at: 512)
            disk.fail(.init([.resize]))
            // The change is refused and nothing has changed.
            #expect(try await failure { try await bench.graph.setGrant(PermissionGrant(used: .consistentRead, shared: .all), of: backend) } != nil)
            #expect(backend.length == 1536 && disk.contents.count == 65536)
            disk.clearFaults()
            try await backend.writeArray([UInt8](repeating: 4, count: 512), at: 1536)
            #expect(backend.length == 2048)
            await bench.graph.release(backend)
            #expect(disk.contents.count == 2048)
        }
    }

    @Test("zeroes beyond the end of the data come from the reservation")
    func zeroes() async throws {
        try await FilterBench.run { bench in
            let disk = SimulatedDisk(byteCount: 4096)
            defer { disk.retire() }
            let filter = BlockdevOptionsPreallocate(file: .definition(disk.options()), preallocAlign: 65536, preallocSize: 0)
            try await bench.graph.add(BlockdevOptions(.preallocate(filter), nodeName: "p"))
            let backend = try await bench.writer(on: "p", [.consistentRead, .write, .resize])
            try await backend.writeArray([1], at: 4096)
            disk.forgetRequests()
            try await backend.writeZeroes(GuestRange(GuestOffset(8192), byteCount: 8192))
            #expect(disk.requests.isEmpty)
            #expect(backend.length == 16384)
            #expect(try await backend.readArray(at: 4096, 12_288) == [1] + [UInt8](repeating: 0, count: 12_287))
            // Where something was written before, zeroes are written.
            try await backend.writeZeroes(GuestRange(GuestOffset(4096), byteCount: 512))
            #expect(disk.requests.contains { $0.operation == .writeZeroes })
            await bench.graph.release(backend)
            #expect(disk.contents.count == 16384)
        }
    }

    @Test("a disk without a way to reserve, or without space for it, is written to as if the filter were not there")
    func hopeless() async throws {
        for faults in [false, true] {
            try await FilterBench.run { bench in
                var properties = SimulatedDisk.Properties()
                properties.writesZeroes = faults
                let disk = SimulatedDisk(byteCount: 512, properties)
                defer { disk.retire() }
                if faults { disk.fail(.init([.writeZeroes], .noSpace)) }
                let filter = BlockdevOptionsPreallocate(file: .definition(disk.options()))
                try await bench.graph.add(BlockdevOptions(.preallocate(filter), nodeName: "p"))
                let backend = try await bench.writer(on: "p", [.consistentRead, .write, .resize])
                for index in 0..<5 { try await backend.writeArray([UInt8](repeating: 3, count: 1024), at: 1024 * index) }
                #expect(disk.contents.count == 5120 && backend.length == 5120)
                #expect(disk.contents.allSatisfy { $0 == 3 })
                await bench.graph.release(backend)
            }
        }
    }

    @Test("options that QEMU refuses are refused")
    func refusals() async throws {
        try await FilterBench.run { bench in
            let path = bench.emptyFile("disk")
            for (align, size, expected) in [
                (100, nil, "prealloc-align parameter of preallocate filter is not aligned to 512"),
                (-512, nil, "Value '-512' is out of range for parameter 'prealloc-align'"),
                (nil, -1, "Value '-1' is out of range for parameter 'prealloc-size'"),
            ] as [(Int?, Int?, String)] {
                let refusal1 = try await failure { try await bench.graph.add(Self.options(path, align: align, size: size)) }
                #expect(refusal1 == expected)
            }
        }
    }
}

@Suite("compress")
struct CompressTests {
    @Test("every write reaches the format as compressed, in whole units, and the last one ends with the disk")
    func writes() async throws {
        try await FilterBench.run { bench in
            var properties = SimulatedDisk.Properties()
            properties.compressionUnit = 65536
            let disk = SimulatedDisk(byteCount: 200_192, properties)
            defer { disk.retire() }
            try await bench.graph.add(BlockdevOptions(.compress(BlockdevOptionsGenericFormat(file: .definition(disk.options()))), nodeName: "c"))
            let backend = try await bench.writer(on: "c")
            var model = [UInt8](repeating: 0, count: 200_192)
            for (offset, count) in [(0, 65536), (70_000, 10), (1, 199_000), (196_608, 3584), (200_000, 192)] {
                let data = (0..<count).map { UInt8(truncatingIfNeeded: $0 + offset) }
                model.replaceSubrange(offset..<offset + count, with: data)
                try await backend.writeArray(data, at: offset)
            }
            let writes = disk.requests.filter { $0.operation == .write }
            #expect(!writes.isEmpty && writes.allSatisfy { $0.flags.contains(.compressed) })
            #expect(disk.violations.isEmpty)
            #expect(firstDifference(try await backend.readArray(at: 0, 200_192), model) == nil)
            #expect(firstDifference(disk.contents, model) == nil)
            await bench.graph.release(backend)
        }
    }

    @Test("a child that cannot compress is refused by name, through other filters too")
    func refusal() async throws {
        try await FilterBench.run { bench in
            let raw = BlockdevOptions(.raw(BlockdevOptionsRaw(file: .definition(.hostFile(bench.emptyFile("disk"))))))
            let direct = BlockdevOptions(.compress(BlockdevOptionsGenericFormat(file: .definition(raw))), nodeName: "c")
            let refusal2 = try await failure { try await bench.graph.add(direct) }
            #expect(refusal2 == "Compression is not supported for underlying format: raw")
            let between = BlockdevOptions(.copyOnRead(BlockdevOptionsCor(file: .definition(raw))))
            let through = BlockdevOptions(.compress(BlockdevOptionsGenericFormat(file: .definition(between))), nodeName: "c")
            let refusal3 = try await failure { try await bench.graph.add(through) }
            #expect(refusal3 == "Compression is not supported for underlying format: copy-on-read")
            #expect(await bench.graph.allNodes.isEmpty)
        }
    }
}
