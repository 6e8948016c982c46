import BlockGraph
import Foundation
import IOCore
import QAPIRuntime
import QCOW2
import QCOW2Testing
import StorageSchema
import StrataBase
import Synchronization
import Testing

@Suite("qcow2's guards around its own tables")
struct OverlapCheckTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let target: String
        let checks: Qcow2OverlapChecks?
        let isRefused: Bool
        var testDescription: String { "\(target), \(checks.map { "\($0)" } ?? "default")" }
    }

    static let cases: [Case] = {
        var cases: [Case] = []
        for (name, sets) in [
            ("active L1 table", ["constant", "cached", "all"]), ("refcount table", ["constant", "cached", "all"]), ("refcount block", ["cached", "all"]),
            ("active L2 table", ["cached", "all"]), ("snapshot table", ["constant", "cached", "all"]), ("inactive L1 table", ["cached", "all"]),
            ("inactive L2 table", ["all"]), ("bitmap directory", ["constant", "cached", "all"]),
        ] {
            for mode in [Qcow2OverlapCheckMode.none, .constant, .cached, .all] {
                cases.append(Case(target: name, checks: .mode(mode), isRefused: sets.contains(mode.rawValue)))
            }
            cases.append(Case(target: name, checks: nil, isRefused: sets.contains("cached")))
        }
        // Each guard alone, and everything but it.
        let own: [(String, (inout Qcow2OverlapCheckFlags, Bool) -> Void)] = [
            ("active L1 table", { $0.activeL1 = $1 }), ("active L2 table", { $0.activeL2 = $1 }), ("refcount table", { $0.refcountTable = $1 }),
            ("refcount block", { $0.refcountBlock = $1 }), ("snapshot table", { $0.snapshotTable = $1 }), ("inactive L1 table", { $0.inactiveL1 = $1 }),
            ("inactive L2 table", { $0.inactiveL2 = $1 }), ("bitmap directory", { $0.bitmapDirectory = $1 }),
        ]
        for (target, set) in own {
            for isOn in [true, false] {
                var flags = Qcow2OverlapCheckFlags(template: isOn ? Qcow2OverlapCheckMode.none : .all)
                set(&flags, isOn)
                cases.append(Case(target: target, checks: .flags(flags), isRefused: isOn))
            }
        }
        return cases
    }()

    /// An image whose guest cluster 5 is mapped to one of the image's own tables.
    static func build(_ target: String, _ scratch: Scratch) throws -> (image: [UInt8], table: Range<Int>) {
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", path, "1M"])
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 1 0 64k", path])
        try run("qemu-img", ["snapshot", "-c", "one", path])
        if target == "bitmap directory" { try run("qemu-img", ["bitmap", "--add", path, "b0"]) }
        // The active L2 table becomes another one than the snapshot's.
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 2 0 64k", path])
        var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        // A table may end before its cluster does, and the file with it.
        bytes += [UInt8](repeating: 0, count: bytes.count.roundedUp(to: 4096) - bytes.count)
        func word(_ offset: Int) -> Int { bytes[offset..<(offset + 8)].reduce(0) { $0 << 8 | Int($1) } }
        let mask = 0x00ff_ffff_ffff_fe00
        let (l1, l2, snapshots) = (word(40), word(word(40)) & mask, word(64))
        let place: Int
        switch target {
        case "active L1 table": place = l1
        case "refcount table": place = word(48)
        case "refcount block": place = word(word(48))
        case "active L2 table": place = l2
        case "snapshot table": place = snapshots
        case "inactive L1 table": place = word(snapshots)
        case "bitmap directory":
            var position = word(100) >> 32
            while word(position) >> 32 != 0x2385_2875 { position += 8 + (word(position) & 0xffff_ffff).roundedUp(to: 8) }
            place = word(position + 24)
        default: place = word(word(snapshots)) & mask
        }
        let entry = UInt64(place) | 1 << 63
        for i in 0..<8 { bytes[l2 + 5 * 8 + i] = UInt8(truncatingIfNeeded: entry >> UInt64(56 - 8 * i)) }
        return (bytes, place..<place + 4096)
    }

    @Test("a write through a mapping that names them is refused where it is guarded, the image is marked and the event is sent", arguments: cases)
    func guarded(test: Case) async throws {
        let scratch = try Scratch()
        let (image, table) = try Self.build(test.target, scratch)
        let recorder = Recorder(disk: image)
        defer { recorder.forget() }
        let events = Mutex<[String]>([])
        try await onContext { context in
            var options = recorder.imageOptions()
            guard case .qcow2(var own) = options.branch else { return }
            own.overlapCheck = test.checks
            options.branch = .qcow2(own)
            let graph = BlockGraph(context: context, drivers: DriverRegistry(testDrivers), events: GraphEvents { event in
                if let event = event as? BlockImageCorruptedEvent {
                    events.withLock { $0.append("\(event.nodeName ?? "") \(event.msg) \(event.offset ?? -1) \(event.fatal)") }
                }
            })
            try await graph.add(options)
            let disk = try await graph.makeBackend(named: "test", on: "disk", PermissionGrant(used: [.consistentRead, .write], shared: .all))
            if test.isRefused {
                await #expect(throws: BlockError.self) { try await disk.writeBytes([UInt8](repeating: 7, count: 4096), at: 5 * 4096) }
                await #expect(throws: BlockError.self) { try await disk.writeBytes([UInt8](repeating: 7, count: 4096), at: 0) }
            } else {
                try await disk.writeBytes([UInt8](repeating: 7, count: 4096), at: 5 * 4096)
            }
            await graph.release(disk)
            do { try await graph.closeAll() } catch { #expect(!test.isRefused) }
        }
        var after = recorder.state.withLock { $0.disk }
        if test.isRefused {
            // Whoever writes to an image marks its bitmaps as in use first, in the flags of each entry.
            if test.target == "bitmap directory" { after[table.lowerBound + 15] &= ~1 }
            #expect(Array(after[table]) == Array(image[table]))
            #expect(after[79] & 2 == 2)
            #expect(events.withLock { $0 } == ["disk Preventing invalid write on metadata (overlaps with \(test.target)) \(table.lowerBound) true"])
        } else {
            #expect(after[79] & 2 == 0 && events.withLock { $0 }.isEmpty)
        }
    }

    @Test("with discard-no-unref a discarded cluster keeps its place and reads as zeroes")
    func keepsDiscarded() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", path, "1M"])
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 1 0 512k", path])
        let before = try CheckTests.qemu(path)?["image-end-offset"]
        try await onContext { context in
            var options = imageOptions(path)
            guard case .qcow2(var own) = options.branch else { return }
            own.discardNoUnref = true
            options.branch = .qcow2(own)
            try await withImage(options, context) { disk in
                try await disk.discard(GuestRange(GuestOffset(65536), byteCount: 131072))
                #expect(try await disk.readBytes(at: 65536, 3) == [0, 0, 0])
                try await disk.writeBytes([UInt8](repeating: 9, count: 65536), at: 65536)
            }
        }
        let report = try CheckTests.qemu(path)
        #expect(report?["image-end-offset"] == before && report?["allocated-clusters"] == 8 && report?["leaks"] == nil && report?["corruptions"] == nil)
    }

    @Test("an image that nobody uses lets go of its caches and is read as before", arguments: ["extended_l2=off", "extended_l2=on"])
    func cacheCleaning(entries: String) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", entries, path, "1G"])
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 1 0 64k", "-c", "write -P 2 65536 1", "-c", "write -P 3 300k 64k", path])
        try await onContext { context in
            var options = imageOptions(path, readOnly: true)
            guard case .qcow2(var own) = options.branch else { return }
            own.cacheCleanInterval = 1
            options.branch = .qcow2(own)
            try await withImage(options, context) { disk in
                let before = try await disk.readBytes(at: 0, 512 << 10)
                #expect(before[0] == 1 && before[65536] == 2 && before[300 << 10] == 3)
                guard let driver = disk.node.driver as? QCOW2Driver else { throw ToolFailure(description: "no qcow2") }
                #expect(driver.cachedBytes > 0)
                let end = ContinuousClock.now + .seconds(60)
                while driver.cachedBytes > 0 {
                    if ContinuousClock.now > end { throw ToolFailure(description: "the caches stay") }
                    await context.sleep(for: .milliseconds(100))
                }
                #expect(try await disk.readBytes(at: 0, 512 << 10) == before)
                #expect(driver.cachedBytes > 0)
            }
        }
    }
}
