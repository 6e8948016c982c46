import BlockGraph
import Foundation
import IOCore
import QCOW2Testing
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

/// As many bitmaps as the format's limit allows: what each costs does not depend on how many there are.
@Suite("as many bitmaps in one qcow2 image as there can be")
struct ManyBitmapsTests {
    /// An image of 1 MiB whose directory has so many entries, each with a table of its own that is empty.
    private static func image(_ count: Int) throws -> [UInt8] {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", path, "1M"])
        try run("qemu-img", ["bitmap", "--add", path, "b"])
        var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        func number(_ offset: Int, _ size: Int) -> Int { bytes[offset..<offset + size].reduce(0) { $0 << 8 | Int($1) } }
        func put(_ value: Int, _ size: Int, at offset: Int) { for index in 0..<size { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * (size - 1 - index))) } }
        var place = number(100, 4)
        while number(place, 4) != 0x2385_2875 { place += 8 + number(place + 4, 4).roundedUp(to: 8) }
        let entry = Array(bytes[number(place + 24, 8)..<number(place + 24, 8) + 24])
        bytes += [UInt8](repeating: 0, count: bytes.count.roundedUp(to: 512) - bytes.count)
        let tables = bytes.count
        bytes += [UInt8](repeating: 0, count: 512 * count)
        let directory = bytes.count
        for index in 0..<count {
            let name = Array("bitmap \(index)".utf8)
            let offset = tables + 512 * index
            var own = entry
            for byte in 0..<8 { own[byte] = UInt8(truncatingIfNeeded: offset >> (56 - 8 * byte)) }
            (own[18], own[19]) = (0, UInt8(name.count))
            bytes += own
            bytes += name
            bytes += [UInt8](repeating: 0, count: bytes.count.roundedUp(to: 8) - bytes.count)
        }
        put(count, 4, at: place + 8)
        put(bytes.count - directory, 8, at: place + 16)
        put(directory, 8, at: place + 24)
        bytes += [UInt8](repeating: 0, count: bytes.count.roundedUp(to: 512) - bytes.count)
        return bytes
    }

    @Test("all of them are loaded, note a write, and are stored again", .timeLimit(.minutes(10)))
    func limit() async throws {
        let count = extendedRun ? 65535 : 4000
        let recorder = Recorder(disk: try Self.image(count))
        defer { recorder.forget() }
        recorder.state.withLock { ($0.isSlow, $0.isRecording) = (false, false) }
        try await onContext { context in
            // Nobody has counted what the tables take.
            let repaired = try await RepairTests.repair(recorder.imageOptions(), [.leaks, .errors], context)
            #expect(repaired.corruptions == 0 && repaired.leaks == 0)
            try await withImage(recorder.imageOptions(), context) { disk in
                #expect(disk.node.bitmaps.named.count == count)
                try await disk.writeBytes([UInt8](repeating: 3, count: 512), at: 128 << 10)
            }
            try await withImage(recorder.imageOptions(readOnly: true), context) { disk in
                let bitmaps = disk.node.bitmaps.named
                #expect(bitmaps.count == count && bitmaps.allSatisfy { !$0.isInconsistent && $0.dirtyByteCount == $0.granularity })
                #expect(disk.node.bitmaps.bitmap(named: "bitmap \(count - 1)") != nil)
                let report = try await disk.node.checking?.check(repair: [])
                #expect(report?.corruptions == 0 && report?.leaks == 0)
            }
        }
    }

    @Test("one more than the limit is refused, as by qemu-img")
    func oneTooMany() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try Data(try Self.image(65536)).write(to: URL(fileURLWithPath: path))
        let said = try run("qemu-img", ["info", path], allowedStatus: [1])
        let error = await #expect(throws: BlockError.self) { try await onContext { context in try await withImage(imageOptions(path, readOnly: true), context) { _ in } } }
        #expect(error?.message == "bitmaps_ext: image has 65536 bitmaps, exceeding the maximum of 65535" && said.contains("Image has 65536 bitmaps"), "\(said)")
    }
}
