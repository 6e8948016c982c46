import Foundation
import Strata
import Testing

@Suite("library")
struct StorageTests {
    /// Bytes that differ from their neighbours at any alignment.
    private static func pattern(_ count: Int, seed: UInt8) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) ^ seed } }

    @Test("what is written is read back, at any position and of any length")
    func roundTrip() async throws {
        let scratch = try Scratch()
        let path = scratch.disk("disk.img", byteCount: 8 << 20)
        let storage = try Storage()
        let disk = try await storage.open(path, format: .raw)
        #expect(disk.length == 8 << 20 && !disk.isReadOnly)
        let bytes = Self.pattern(3 << 20 + 7, seed: 1)
        try await disk.write(bytes, at: 12345)
        #expect(try await disk.read(at: 12345, count: bytes.count) == bytes)
        #expect(try await disk.read(at: 0, count: 12345).allSatisfy { $0 == 0 })
        #expect(try await disk.read(at: disk.length, count: 0).isEmpty)
        try await disk.flush()
        try await storage.close()
        let file = try Data(contentsOf: URL(fileURLWithPath: path))
        #expect([UInt8](file[12345..<12345 + bytes.count]) == bytes)
    }

    @Test("many requests at once each get their own bytes")
    func concurrentRequests() async throws {
        let scratch = try Scratch()
        let storage = try Storage()
        let disk = try await storage.open(scratch.disk("disk.img", byteCount: 1 << 20), format: .raw)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for slot in 0..<64 {
                group.addTask {
                    let bytes = Self.pattern(5000, seed: UInt8(slot))
                    try await disk.write(bytes, at: slot * 16000)
                    let back = try await disk.read(at: slot * 16000, count: bytes.count)
                    #expect(back == bytes)
                }
            }
            try await group.waitForAll()
        }
        try await storage.close()
    }

    @Test("a disk that others use cannot be closed and goes on; one that is closed refuses everything", arguments: [BlockdevDriver.raw, .qcow2])
    func closing(format: BlockdevDriver) async throws {
        let scratch = try Scratch()
        let path = scratch.file("disk")
        try run("/usr/bin/qemu-img", ["create", "-q", "-f", format.rawValue, path, "1M"])
        let storage = try Storage()
        let disk = try await storage.open(path, format: format)
        try await storage.startNBDServer(.unix(path: scratch.file("nbd.sock")))
        try await storage.export(disk, as: "disk")
        await #expect(throws: BlockError.self) { try await disk.close() }
        try await disk.write([1, 2, 3], at: 4096)
        #expect(try await disk.read(at: 4096, count: 3) == [1, 2, 3])
        try await storage.stopNBDServer()
        try await disk.close()
        let before = try Data(contentsOf: URL(fileURLWithPath: path))
        await #expect(throws: BlockError.self) { try await disk.read(at: 4096, count: 3) }
        await #expect(throws: BlockError.self) { try await disk.write([4], at: 4096) }
        await #expect(throws: BlockError.self) { try await disk.writeZeroes(at: 0, count: 65536) }
        await #expect(throws: BlockError.self) { try await disk.resize(to: 2 << 20) }
        await #expect(throws: BlockError.self) { try await disk.blockStatus(at: 0, count: 512) }
        await #expect(throws: BlockError.self) { try await disk.information() }
        await #expect(throws: BlockError.self) { try await disk.flush() }
        await #expect(throws: BlockError.self) { try await disk.close() }
        #expect(disk.length == 1 << 20 && !disk.isReadOnly)
        #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == before)
        // The image is free again, also for the same storage.
        let again = try await storage.open(path, format: format)
        #expect(try await again.read(at: 4096, count: 3) == [1, 2, 3])
        try await storage.close()
    }

    @Test("whoever waits for a quit is told of the end when the storage is closed")
    func waiting() async throws {
        let storage = try Storage()
        let waiter = Task { await storage.waitForQuit() }
        try await storage.close()
        await waiter.value
    }

    @Test("a qcow2 image of QEMU's is read, written, zeroed, measured and described")
    func qcow2() async throws {
        let scratch = try Scratch()
        let (base, top) = (scratch.file("base.qcow2"), scratch.file("top.qcow2"))
        try run("/usr/bin/qemu-img", ["create", "-q", "-f", "qcow2", base, "4M"])
        try run("/usr/bin/qemu-img", ["create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top])
        let storage = try Storage()
        let bottom = try await storage.open(base, format: .qcow2)
        try await bottom.write(Self.pattern(65536, seed: 2), at: 0)
        try await bottom.close()
        let disk = try await storage.open(top, format: .qcow2)
        #expect(try await disk.read(at: 0, count: 65536) == Self.pattern(65536, seed: 2))
        try await disk.write(Self.pattern(65536, seed: 3), at: 65536)
        try await disk.writeZeroes(at: 131072, count: 65536)
        #expect(try await disk.blockStatus(at: 0, count: 65536) == DiskExtent(offset: 0, count: 65536, isZero: false, isData: true, isAllocated: true, depth: 1))
        #expect(try await disk.blockStatus(at: 65536, count: 65536).depth == 0)
        #expect(try await disk.blockStatus(at: 131072, count: 65536).isZero)
        try await disk.resize(to: 6 << 20)
        #expect(disk.length == 6 << 20)
        let information = try await disk.information()
        #expect(information.clusterSize == 65536 && information.backingFilename == base)
        #expect(try await storage.nodes().map(\.drv).sorted() == ["file", "file", "qcow2", "qcow2"])
        try await storage.close()
        try run("/usr/bin/qemu-img", ["check", "-q", top])
        try run("/usr/bin/qemu-img", ["check", "-q", base])
    }

    @Test("several storages in one process know nothing of each other")
    func independentGraphs() async throws {
        let scratch = try Scratch()
        let storages = try (0..<3).map { try Storage(name: "graph \($0)") }
        for (index, storage) in storages.enumerated() {
            let disk = try await storage.open(scratch.disk("disk\(index).img", byteCount: 65536), format: .raw, name: "disk")
            try await disk.write([UInt8(index + 1)], at: 100)
        }
        for storage in storages {
            let names = try await storage.nodes().compactMap(\.nodeName)
            #expect(names.count == 2 && names.contains("disk"))
        }
        try await storages[1].close()
        let again = try await storages[0].execute("query-named-block-nodes")
        #expect(again.array?.count == 2)
        try await storages[0].close()
        try await storages[2].close()
        for index in 0..<3 { #expect(try Data(contentsOf: URL(fileURLWithPath: scratch.file("disk\(index).img")))[100] == UInt8(index + 1)) }
    }

    @Test("an NBD client sees an exported disk, and what it writes is seen here")
    func nbdExport() async throws {
        let scratch = try Scratch()
        let storage = try Storage()
        let disk = try await storage.open(scratch.disk("disk.img", byteCount: 1 << 20), format: .raw)
        try await disk.write([UInt8](repeating: 0x11, count: 4096), at: 0)
        try await storage.startNBDServer(.unix(path: scratch.file("nbd.sock")))
        try await storage.export(disk, as: "disk", isWritable: true)
        let uri = "nbd+unix:///disk?socket=" + scratch.file("nbd.sock")
        try run("/usr/bin/qemu-io", ["-f", "raw", "-c", "read -P 0x11 0 4k", "-c", "write -P 0x22 4k 4k", uri])
        #expect(try await disk.read(at: 4096, count: 4096).allSatisfy { $0 == 0x22 })
        try await storage.stopNBDServer()
        #expect(!FileManager.default.fileExists(atPath: scratch.file("nbd.sock")))
        try await disk.close()
        #expect(try await storage.nodes().isEmpty)
        try await storage.close()
    }

    @Test("commands run in the process, events are heard, and a monitor serves others")
    func commands() async throws {
        let scratch = try Scratch()
        let (events, continuation) = AsyncStream.makeStream(of: String.self)
        let storage = try Storage { continuation.yield(type(of: $0).eventName) }
        try await storage.execute("blockdev-add", ["driver": "null-co", "node-name": "disk"])
        try await storage.startNBDServer(.unix(path: scratch.file("nbd.sock")))
        try await storage.execute("block-export-add", ["type": "nbd", "id": "e", "node-name": "disk"])
        try await storage.execute("block-export-del", ["id": "e"])
        for await event in events {
            #expect(event == "BLOCK_EXPORT_DELETED")
            break
        }
        try await storage.startMonitor(.unix(path: scratch.file("qmp.sock")))
        #expect(FileManager.default.fileExists(atPath: scratch.file("qmp.sock")))
        let failure = await #expect(throws: QMPError.self) { try await storage.execute("nosuch") }
        #expect(failure?.errorClass == .commandNotFound)
        try await storage.close()
        #expect(!FileManager.default.fileExists(atPath: scratch.file("qmp.sock")))
    }

    @Test("mistakes are errors that name the thing, never traps")
    func mistakes() async throws {
        let scratch = try Scratch()
        let storage = try Storage()
        let absent = await #expect(throws: BlockError.self) { try await storage.open(scratch.file("absent"), format: .raw) }
        #expect(absent?.code == .notFound && absent?.message.contains("absent") == true)
        let path = scratch.disk("disk.img", byteCount: 65536)
        await #expect(throws: BlockError.self) { try await storage.open(path, format: .qcow2) }
        await #expect(throws: BlockError.self) { try await storage.open(path, format: .nullCo) }
        await #expect(throws: BlockError.self) { try await storage.open(describedBy: "driver=raw") }
        let disk = try await storage.open(path, format: .raw, isReadOnly: true)
        #expect(disk.isReadOnly)
        await #expect(throws: BlockError.self) { try await disk.write([1], at: 0) }
        for (offset, count) in [(-1, 1), (0, -1), (65536, 1), (Int.max, 1), (1, Int.max), (65000, 1000)] {
            let failure = await #expect(throws: BlockError.self) { try await disk.read(at: offset, count: count) }
            #expect(failure?.code == .invalidArgument)
        }
        await #expect(throws: BlockError.self) { try await storage.export(disk, as: "x") }
        try await storage.close()
        await #expect(throws: BlockError.self) { try await disk.read(at: 0, count: 1) }
        await #expect(throws: BlockError.self) { try await storage.close() }
    }
}
