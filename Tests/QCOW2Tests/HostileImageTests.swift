import BlockGraph
import Foundation
import IOCore
import QCOW2Testing
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

@Suite("hostile qcow2 images")
struct HostileImageTests {
    /// A small image that uses what there is: data, zeroes, compressed clusters, a snapshot, a bitmap.
    static func base(_ scratch: Scratch, clusterSize: Int) throws -> [UInt8] {
        let path = scratch.file("base.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=\(clusterSize)", path, String(96 * clusterSize)])
        try run("qemu-io", [
            "-f", "qcow2", "-c", "write -P 1 0 \(20 * clusterSize)", "-c", "write -z \(8 * clusterSize) \(8 * clusterSize)",
            "-c", "write -c -P 3 \(30 * clusterSize) \(clusterSize)", path,
        ])
        try run("qemu-img", ["snapshot", "-c", "one", path])
        try run("qemu-img", ["bitmap", "--add", path, "b0"])
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 5 \(2 * clusterSize) \(3 * clusterSize)", path])
        return [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    }

    /// Opens, reads, writes, zeroes, discards, checks, flushes and closes; errors are the expected outcome.
    static func exercise(_ bytes: [UInt8], _ seed: UInt64, _ context: IOContext) async -> Int {
        let recorder = Recorder(disk: bytes)
        defer { recorder.forget() }
        recorder.state.withLock { ($0.isRecording, $0.isSlow) = (false, seed % 2 == 0) }
        var failures = 0
        for readOnly in [true, false] {
            do {
                failures += try await withImage(recorder.imageOptions(readOnly: readOnly, l2CacheSize: 8192), context) { disk in
                    var random = SeededGenerator(seed: seed)
                    var failures = 0
                    func attempt(_ body: () async throws -> Void) async { do { try await body() } catch { failures += 1 } }
                    let size = min(disk.length, 1 << 20)
                    guard size > 8192 else { return 0 }
                    for _ in 0..<(readOnly ? 6 : 14) {
                        let start = Int.random(in: 0..<(size - 4096), using: &random)
                        let count = Int.random(in: 1...4096, using: &random)
                        await attempt { _ = try await disk.readBytes(at: start, count) }
                        if readOnly { continue }
                        switch Int.random(in: 0..<5, using: &random) {
                        case 0, 1: await attempt { try await disk.writeBytes([UInt8](repeating: 7, count: count), at: start) }
                        case 2: await attempt { try await disk.writeZeroes(GuestRange(GuestOffset(start), byteCount: count), flags: .mayUnmap) }
                        case 3: await attempt { try await disk.discard(GuestRange(GuestOffset(start & ~511), byteCount: 8192)) }
                        default: await attempt { try await disk.flush() }
                        }
                    }
                    if let snapshotting = disk.node.snapshotting {
                        await attempt { _ = try await snapshotting.listSnapshots() }
                        if readOnly {
                            await attempt { try await snapshotting.loadSnapshot(SnapshotSelector(id: "1")) }
                            await attempt { _ = try await disk.readBytes(at: 0, 4096) }
                        } else {
                            await attempt { _ = try await snapshotting.createSnapshot(named: "new", moment: moment(1)) }
                            await attempt { try await snapshotting.applySnapshot(SnapshotSelector(id: "1")) }
                            await attempt { try await disk.writeBytes([UInt8](repeating: 8, count: 4096), at: 0) }
                            await attempt { _ = try await snapshotting.deleteSnapshot(SnapshotSelector(id: "1")) }
                        }
                    }
                    await attempt { _ = try await disk.node.checking?.check(repair: []) }
                    await attempt { _ = try await disk.node.imageDescribing?.describeImage() }
                    await attempt { _ = try await disk.blockStatus(of: GuestRange(GuestOffset(0), byteCount: size)) }
                    return failures
                }
            } catch { failures += 1 }
        }
        // As damaged as it is by now, it is repaired; where that leaves nothing wrong, nothing is found afterwards.
        do {
            let first = try await RepairTests.repair(recorder.imageOptions(), [.leaks, .errors], context)
            let second = try await RepairTests.repair(recorder.imageOptions(), [.leaks, .errors], context)
            if first.corruptions == 0, first.checkErrors == 0 { #expect(second.corruptions == 0 && second.corruptionsFixed == 0, "\(first) \(second)") }
        } catch { failures += 1 }
        // No write may have made the file grow out of all proportion.
        #expect(recorder.state.withLock { $0.disk.count } < bytes.count + (64 << 20))
        return failures
    }

    @Test("no mutation of the metadata reaches a trap", arguments: 0..<6 as Range<UInt64>)
    func mutations(seed: UInt64) async throws {
        let scratch = try Scratch()
        let clusterSize = [512, 4096, 512][Int(seed % 3)]
        let original = try Self.base(scratch, clusterSize: clusterSize)
        try await onContext { context in
            var random = SeededGenerator(seed: seed + 1000)
            // The tables lie between the data clusters; words that are not zero and look like entries are the interesting ones.
            let words = stride(from: 0, to: original.count - 8, by: 8).filter { start in
                original[start..<(start + 8)].contains { $0 != 0 } && Set(original[start..<(start + 8)]).count > 1
            }
            for round in 0..<50 {
                var bytes = original
                for _ in 0..<Int.random(in: 1...4, using: &random) {
                    let word = words.randomElement(using: &random) ?? 0
                    if Int.random(in: 0..<3, using: &random) == 0 {
                        let value: UInt64 = [0, .max, 1 << 63, 1 << 62, 1 << 55, 0x8000_0000_0000_0200, UInt64(clusterSize), 1 << 63 | 1, random.next()]
                            .randomElement(using: &random) ?? 0
                        for i in 0..<8 { bytes[word + i] = UInt8(truncatingIfNeeded: value >> UInt64(56 - 8 * i)) }
                    } else {
                        bytes[word + Int.random(in: 0..<8, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
                    }
                }
                if Int.random(in: 0..<6, using: &random) == 0 { bytes.removeLast(Int.random(in: 0..<bytes.count, using: &random)) }
                _ = await Self.exercise(bytes, seed * 1000 + UInt64(round), context)
            }
        }
    }

    @Test("a mapping that names the image's own tables is not written through, and the image is marked")
    func overlap() async throws {
        let scratch = try Scratch()
        var bytes = try Self.base(scratch, clusterSize: 512)
        func word(_ offset: Int) -> Int { bytes[offset..<(offset + 8)].reduce(0) { $0 << 8 | Int($1) } }
        let l1 = word(40)
        let l2 = word(l1) & 0x00ff_ffff_ffff_fe00
        let entry: UInt64 = 1 << 63 | UInt64(l1)
        for i in 0..<8 { bytes[l2 + 5 * 8 + i] = UInt8(truncatingIfNeeded: entry >> UInt64(56 - 8 * i)) }
        let damaged = bytes
        let table = Array(bytes[l1..<(l1 + 16)])
        try await onContext { context in
            let recorder = Recorder(disk: damaged)
            defer { recorder.forget() }
            try await withImage(recorder.imageOptions(), context) { disk in
                await #expect(throws: BlockError.self) { try await disk.writeBytes([1, 2, 3], at: 5 * 512) }
                await #expect(throws: BlockError.self) { try await disk.writeBytes([1, 2, 3], at: 0) }
            }
            let after = recorder.state.withLock { $0.disk }
            #expect(Array(after[l1..<(l1 + 16)]) == table)
            #expect(after[79] & 2 == 2)  // the corrupt bit
            await #expect(throws: BlockError.self) { try await withImage(recorder.imageOptions(), context) { _ in } }
        }
    }
}
