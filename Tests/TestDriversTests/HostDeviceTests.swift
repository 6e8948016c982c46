import Foundation
import IOCore
import StrataBase
import StrataTesting
import Testing

@Suite("host_device")
struct HostDeviceTests {
    /// A loop device full of one byte, in a folder of its own, for as long as `body` takes.
    private static func withDevice(sectorSize: Int = 512, _ body: (TemporaryFolder, String) throws -> Void) throws {
        let folder = try TemporaryFolder()
        try folder.write([UInt8](repeating: 0x11, count: 1 << 20), to: "disk")
        let device = try LoopDevice(over: folder.path("disk"), sectorSize: sectorSize)
        defer { device.detach() }
        try body(folder, device.path)
    }

    @Test("a device does what QEMU's driver does with it", arguments: [512, 4096], [false, true])
    func same(sectorSize: Int, direct: Bool) throws {
        func lines(_ maker: StorageDaemon.Maker) throws -> SessionResult {
            var result = SessionResult()
            try Self.withDevice(sectorSize: sectorSize) { _, path in
                let session = TwinSession(
                    nodes: [["driver": "host_device", "node-name": "top", "filename": .string(path), "discard": "unmap", "cache": ["direct": .bool(direct)]]],
                    io: [
                        "length", "read -P 0x11 0 1M", "write -P 5 4k 64k", "write -z 8k 8k", "write -zu 16k 8k", "discard 32k 8k", "read -P 5 4k 4k",
                        "read -P 0 8k 16k", "read -P 5 24k 8k", "write -P 6 100 1000", "read -P 6 100 1000", "flush",
                    ])
                result = try session.run(maker)
            }
            return result
        }
        let (ours, theirs) = (try lines(.ours), try lines(.qemu))
        #expect(ours == theirs)
        #expect(ours.lines.count == 12 && ours.lines.allSatisfy { !$0.contains("failed") }, "\(ours)")
    }

    @Test("a device is no memory, although its name lies in one: what is not in the page cache is waited for elsewhere")
    func isNoMemory() throws {
        try Self.withDevice { _, path in
            let device = try HostFile(opening: path, .init(writable: true))
            #expect(!device.isMemoryBacked)
            let memory = "/dev/shm/strata-\(UUID())"
            defer { unlink(memory) }
            #expect(try HostFile(opening: memory, .init(writable: true, create: true)).isMemoryBacked)
            // Too long to be written without waiting, and not in the page cache any more.
            let data = IOBuffer(zeroed: 1 << 20)
            defer { withExtendedLifetime(data) {} }
            #expect(!device.tryWrite(data.vector, at: HostOffset(0)))
            let flushed = try run("blockdev", ["--flushbufs", path], atMost: .seconds(30))
            #expect(flushed.succeeded, "\(flushed)")
            #expect(!device.tryRead(data.vector, at: HostOffset(0)))
        }
    }

    @Test("discards reach the file below the device")
    func discards() throws {
        try Self.withDevice { folder, path in
            let session = TwinSession(
                nodes: [["driver": "host_device", "node-name": "top", "filename": .string(path), "discard": "unmap"]],
                io: ["discard 0 512k", "write -zu 512k 256k", "flush"])
            _ = try session.run(.ours)
            let blocks = try FileManager.default.attributesOfItem(atPath: folder.path("disk"))
            #expect(blocks[.size] as? Int == 1 << 20)
            var status = stat()
            #expect(stat(folder.path("disk"), &status) == 0)
            #expect(status.st_blocks * 512 <= 300 << 10, "\(status.st_blocks * 512) bytes are allocated")
        }
    }

    @Test("what is no device is refused in QEMU's words, and a device that is named as a file too")
    func refusals() throws {
        try Self.withDevice { _, path in
            for (driver, filename) in [("host_device", "disk"), ("file", path), ("host_device", "nowhere")] {
                let session = TwinSession(
                    files: ["disk": [0]], nodes: [["driver": .string(driver), "node-name": "top", "filename": .string(filename)]])
                try session.expectSame("\(driver) \(filename)")
            }
            let session = TwinSession(files: ["disk": [0]], nodes: [["driver": "file", "node-name": "top", "filename": "disk", "pr-manager": "manager"]])
            #expect(try session.run(.ours).lines == ["refused: Persistent reservation managers ('pr-manager=manager') are not supported"])
        }
    }

    @Test("a device is not resized")
    func resize() throws {
        try Self.withDevice { folder, path in
            let daemon = try StorageDaemon(.ours, in: folder)
            #expect(try daemon.add(["driver": "host_device", "node-name": "top", "filename": .string(path)]) == nil)
            for size in [512 << 10, 2 << 20] {
                #expect(throws: QMPLineClient.Refusal.self) { try daemon.monitor.execute("block_resize", ["node-name": "top", "size": .integer(size)]) }
            }
            try daemon.monitor.execute("block_resize", ["node-name": "top", "size": .integer(1 << 20)])
            try daemon.quit()
        }
    }

    @Test("tools take the name of a device for a device")
    func tools() throws {
        try Self.withDevice { folder, path in
            let info = try Strata.mustImg("info", "--output=json", path, in: folder)
            #expect(try JSON(parsing: info.output)["virtual-size"]?.integer == 1 << 20)
            try Strata.mustImg("convert", "-f", "raw", "-O", "raw", path, "copy", in: folder)
            #expect(firstDifference(try folder.read("copy"), [UInt8](repeating: 0x11, count: 1 << 20)) == nil)
        }
    }
}
