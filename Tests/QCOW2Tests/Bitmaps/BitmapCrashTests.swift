import BlockGraph
import Foundation
import IOCore
import QCOW2Testing
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

/// Persistent bitmaps over a disk that loses and tears what was not flushed, and one that fails.
@Suite("bitmaps in qcow2 after crashes and failures")
struct BitmapCrashTests {
    private static let granularity = 512

    /// An image by QEMU with content and bitmap `b`, which has nothing in it yet.
    private static func makeImage(_ test: CrashTests.Case, _ scratch: Scratch) throws -> (disk: [UInt8], guest: [UInt8]) {
        let made = try CrashTests.makeImage(test, scratch)
        let path = scratch.file("base.qcow2")
        try run("qemu-img", ["bitmap", "--add", "-g", "\(granularity)", path, "b"])
        return ([UInt8](try Data(contentsOf: URL(fileURLWithPath: path))), made.guest)
    }

    /// Writers come and go, so that bitmaps are stored and marked again; others are added and removed meanwhile. Errors are the disk's.
    private static func live(_ recorder: Recorder, _ start: DiskModel, _ seed: UInt64, _ context: IOContext) async throws -> [CrashTests.Step] {
        let graph = BlockGraph(context: context, drivers: DriverRegistry(testDrivers))
        try await graph.add(recorder.imageOptions(l2CacheSize: 8192))
        var steps: [CrashTests.Step] = []
        var model = start
        for round in 0..<4 {
            do {
                let backend = try await graph.makeBackend(
                    named: "test", on: "disk", PermissionGrant(used: [.consistentRead, .write], shared: .all))
                do {
                    steps += try await CrashTests.play(backend, recorder, model, 6)
                    model.random = SeededGenerator(seed: seed &+ UInt64(round) &+ 1)
                    if round == 1 { try await graph.addBitmap(named: "late", to: "disk", granularity: 1024, isPersistent: true) }
                    if round == 2, let late = backend.node.bitmaps.bitmap(named: "late") { try await graph.deleteBitmap(late, of: "disk") }
                } catch {}
                await graph.release(backend)
            } catch {}
        }
        do { try await graph.closeAll() } catch {}
        return steps
    }

    /// What is wrong with the image, if anything: whatever differs from `guest` is dirty, or the bitmap says that it cannot be believed.
    private static func judge(_ disk: [UInt8], _ guest: [UInt8], _ context: IOContext) async throws -> String? {
        let crashed = Recorder(disk: disk)
        defer { crashed.forget() }
        crashed.state.withLock { ($0.isSlow, $0.isRecording) = (false, false) }
        return try await withImage(crashed.imageOptions(readOnly: true), context) { backend in
            guard let checking = backend.node.checking else { return "no check" }
            let report = try await checking.check(repair: [])
            if report.corruptions > 0 || report.checkErrors > 0 { return "\(report.corruptions) corruptions: \(report.messages.prefix(4))" }
            guard let bitmap = backend.node.bitmaps.bitmap(named: "b") else { return "the bitmap is gone" }
            if bitmap.isInconsistent { return nil }
            let bits = bitmap.bits
            let found = try await backend.readBytes(at: 0, guest.count)
            for position in guest.indices where found[position] != guest[position] && !bits.isDirty(at: GuestOffset(position)) {
                return "byte \(position) has changed and is not dirty"
            }
            return nil
        }
    }

    @Test("a bitmap that can be believed after a crash has every byte that has changed; check finds leaks at worst", arguments: CrashTests.cases)
    func anyCrash(test: CrashTests.Case) async throws {
        let scratch = try Scratch()
        let (initial, guest) = try Self.makeImage(test, scratch)
        let recorder = Recorder(disk: initial)
        defer { recorder.forget() }
        var start = DiskModel(size: guest.count, clusterSize: test.clusterSize, seed: test.seed)
        start.bytes = guest
        let model = start
        _ = try await onContext { context in try await Self.live(recorder, model, test.seed, context) }
        let (log, end) = recorder.state.withLock { ($0.log, $0.disk) }
        var random = SeededGenerator(seed: test.seed ^ 0x517)
        var states: [(point: Int, disk: [UInt8])] = [(log.count, end)]
        for point in stride(from: 1, through: log.count, by: max(1, log.count / 120)) {
            states.append((point, CrashTests.crash(initial, log[..<point], &random)))
        }
        let all = states
        let believed = try await onContext { context in
            for (point, disk) in all {
                if let problem = try await Self.judge(disk, guest, context) {
                    throw ToolFailure(description: "\(test.testDescription), crash after \(point) of \(log.count) host operations: \(problem)")
                }
            }
            return true
        }
        #expect(believed)
        // Closed properly it is believed, by QEMU too; and QEMU opens what a crash has left.
        for state in [0, states.count / 3, states.count / 2] {
            let path = scratch.file("crashed.qcow2")
            try Data(states[state].disk).write(to: URL(fileURLWithPath: path))
            try run("qemu-img", ["check", path], allowedStatus: state == 0 ? [0] : [0, 3])
            let info = try run("qemu-img", ["info", path])
            #expect(info.contains("name: b"))
            if state == 0 { #expect(!info.contains("in-use")) }
        }
    }

    @Test("a host operation that fails once leaves an image whose bitmaps are right or not to be believed", arguments: CrashTests.cases.prefix(6))
    func everyFailure(test: CrashTests.Case) async throws {
        let scratch = try Scratch()
        let (initial, guest) = try Self.makeImage(test, scratch)
        var start = DiskModel(size: guest.count, clusterSize: test.clusterSize, seed: test.seed + 3)
        start.bytes = guest
        let model = start
        let dry = Recorder(disk: initial)
        defer { dry.forget() }
        _ = try await onContext { context in try await Self.live(dry, model, test.seed, context) }
        let calls = dry.state.withLock { $0.calls }
        try await onContext { context in
            for failAt in stride(from: 1, through: calls, by: max(1, calls / 60)) {
                let recorder = Recorder(disk: initial)
                defer { recorder.forget() }
                recorder.state.withLock { ($0.failAt, $0.isRecording) = (failAt, false) }
                _ = try await Self.live(recorder, model, test.seed, context)
                if let problem = try await Self.judge(recorder.state.withLock { $0.disk }, guest, context) {
                    throw ToolFailure(description: "\(test.testDescription), host operation \(failAt) of \(calls) fails: \(problem)")
                }
            }
        }
    }

    @Test("an image that stays active because another could not be given up keeps its bitmaps, and they note what comes")
    func failedInactivation() async throws {
        let scratch = try Scratch()
        let (path, other) = (scratch.file("a.qcow2"), scratch.file("other.qcow2"))
        for path in [path, other] { try run("qemu-img", ["create", "-q", "-f", "qcow2", path, "1M"]) }
        try run("qemu-img", ["bitmap", "--add", "-g", "65536", path, "b"])
        let recorder = Recorder(disk: [UInt8](try Data(contentsOf: URL(fileURLWithPath: other))))
        defer { recorder.forget() }
        try await onContext { context in
            let graph = BlockGraph(context: context, drivers: DriverRegistry(testDrivers))
            var second = recorder.imageOptions()
            second.nodeName = "second"
            // The one that was added last is the first to go.
            try await graph.add(second)
            try await graph.add(imageOptions(path))
            let grant = PermissionGrant(used: [.consistentRead, .write], shared: .all)
            let writer = try await graph.makeBackend(named: "writer", on: "second", grant, allowsInactive: true)
            try await writer.writeBytes([UInt8](repeating: 1, count: 4096), at: 0)
            recorder.state.withLock { $0.failAt = $0.calls + 1 }
            await #expect(throws: BlockError.self) { try await graph.setActive(false, nodeNamed: nil) }
            let disk = try await graph.makeBackend(named: "disk", on: "disk", grant)
            try await disk.writeBytes([UInt8](repeating: 2, count: 4096), at: 131072)
            #expect(disk.node.bitmaps.bitmap(named: "b")?.bits.isDirty(at: GuestOffset(131072)) == true)
            await graph.release(disk)
            await graph.release(writer)
            try await graph.closeAll()
        }
        #expect(try run("qemu-img", ["check", path]).contains("No errors were found"))
    }
}
