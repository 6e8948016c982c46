import BlockGraph
import Foundation
import IOCore
import QCOW2Testing
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

@Suite("repairing qcow2 images")
struct RepairTests {
    static func build(_ path: String, seed: UInt64, _ random: inout SeededGenerator) throws {
        try CheckTests.build(path, seed % 2 == 0 ? 4096 : 512, 16, &random)
        if seed % 3 == 0 {
            try run("qemu-img", ["snapshot", "-c", "one", path])
            try run("qemu-io", ["-f", "qcow2", "-c", "write -P 77 10k 20k", path])
        }
    }

    static func repair(_ options: BlockdevOptions, _ repair: CheckRepair, _ context: IOContext) async throws -> CheckReport {
        let graph = BlockGraph(context: context, drivers: DriverRegistry(testDrivers))
        // As the tool opens it: the image alone, damaged as it may be.
        try await graph.add(options, opensChain: false)
        let backend = try await graph.makeBackend(named: "check", on: "disk", PermissionGrant(used: [.consistentRead, .write, .resize], shared: []))
        let result: Result<CheckReport, any Error>
        do {
            guard let checking = backend.node.checking else { throw ToolFailure(description: "no check") }
            result = .success(try await checking.check(repair: repair))
        } catch { result = .failure(error) }
        await graph.release(backend)
        try await graph.closeAll()
        return try result.get()
    }

    /// What each cluster reads as; nil where it cannot be read.
    static func contents(_ options: BlockdevOptions, _ clusterSize: Int, _ context: IOContext) async throws -> [[UInt8]?] {
        try await withImage(options, context) { disk in
            var found: [[UInt8]?] = []
            for start in stride(from: 0, to: disk.length, by: clusterSize) {
                do { found.append(try await disk.readBytes(at: start, min(clusterSize, disk.length - start))) } catch { found.append(nil) }
            }
            return found
        }
    }

    @Test("what QEMU repairs we repair, and everything reads as after QEMU's repair", arguments: 0..<48 as Range<UInt64>)
    func likeQEMU(seed: UInt64) async throws {
        let scratch = try Scratch()
        let (ours, theirs) = (scratch.file("ours.qcow2"), scratch.file("theirs.qcow2"))
        var random = SeededGenerator(seed: seed + 900)
        try Self.build(ours, seed: seed, &random)
        let history = try ImageDamage.apply(ours, Int.random(in: 1...4, using: &random), &random)
        try FileManager.default.copyItem(atPath: ours, toPath: theirs)
        try FileManager.default.copyItem(atPath: ours, toPath: theirs + ".before")
        let clusterSize = seed % 2 == 0 ? 4096 : 512
        try run("qemu-img", ["check", "-q", "-r", "all", theirs], allowedStatus: [0, 1, 2, 3])
        let theirNumbers = try CheckTests.qemu(theirs) ?? [:]
        let before = try await onContext { context in try await Self.contents(imageOptions(theirs + ".before", readOnly: true), clusterSize, context) }
        let report = try await onContext { context in try await Self.repair(imageOptions(ours), [.leaks, .errors], context) }
        let ourNumbers = try CheckTests.qemu(ours) ?? [:]
        // QEMU's opinion of our repair, and our own.
        #expect(ourNumbers["corruptions", default: 0] == report.corruptions, "\(history) \(report.messages.suffix(5)) \(ourNumbers) \(theirNumbers)")
        #expect(ourNumbers["leaks", default: 0] == report.leaks, "\(history) \(report)")
        #expect(ourNumbers["corruptions", default: 0] <= theirNumbers["corruptions", default: 0], "\(history) \(ourNumbers) \(theirNumbers)")
        #expect(ourNumbers["check-errors", default: 0] == 0)
        if theirNumbers["corruptions"] == nil, theirNumbers["check-errors"] == nil { #expect(ourNumbers["leaks"] == nil, "\(history) \(report)") }
        let (found, expected) = try await onContext { context in
            (
                try await Self.contents(imageOptions(ours, readOnly: true), clusterSize, context),
                try await Self.contents(imageOptions(theirs, readOnly: true, discard: false), clusterSize, context)
            )
        }
        for (number, (a, b)) in zip(found, expected).enumerated() {
            guard let b else { continue }
            // What lies behind the end of the file is zeroes and stays so; QEMU lets the file grow over what is still named there, and shows that.
            if a != b, a != before[number] { Issue.record("cluster \(number): \(a?.prefix(8).description ?? "unreadable") instead of \(b.prefix(8)), \(history)") }
        }
        // And it can be written to again, unless something is left.
        if report.corruptions == 0 {
            try await onContext { context in
                try await withImage(imageOptions(ours), context) { disk in try await disk.writeBytes([UInt8](repeating: 9, count: 5000), at: 100) }
            }
            try run("qemu-img", ["check", ours])
        }
    }

    @Test("the same with subclusters, data files, version 2, narrow and wide refcounts, and bitmaps: nothing becomes worse, and what QEMU repairs we repair", arguments: 0..<24 as Range<Int>)
    func kinds(seed: Int) async throws {
        let scratch = try Scratch()
        let (ours, theirs) = (scratch.file("a.qcow2"), scratch.file("theirs.qcow2"))
        var random = SeededGenerator(seed: UInt64(seed) + 7000)
        try CheckTests.build(kind: seed % CheckTests.kinds.count, ours, &random)
        let history = try ImageDamage.apply(ours, Int.random(in: 1...3, using: &random), &random)
        try FileManager.default.copyItem(atPath: ours, toPath: theirs)
        let before = try CheckTests.qemu(ours) ?? [:]
        // It may stop at damage that it does not know how to deal with.
        try run("qemu-img", ["check", "-q", "-r", "all", theirs], allowedStatus: [0, 1, 2, 3, 134])
        let theirNumbers = try CheckTests.qemu(theirs) ?? [:]
        let report: CheckReport
        do { report = try await onContext { context in try await Self.repair(imageOptions(ours), [.leaks, .errors], context) } } catch {
            // Nothing was done.
            #expect(try CheckTests.qemu(ours) ?? [:] == before, "\(history) \(error)")
            return
        }
        let ourNumbers = try CheckTests.qemu(ours) ?? [:]
        let what: Comment = "\(CheckTests.kinds[seed % CheckTests.kinds.count]) \(history) \(report) before \(before), after QEMU's \(theirNumbers)"
        #expect(ourNumbers["corruptions", default: 0] == report.corruptions, what)
        #expect(ourNumbers["leaks", default: 0] == report.leaks, what)
        #expect(ourNumbers["corruptions", default: 0] <= min(before["corruptions", default: 0], theirNumbers["corruptions", default: .max]), what)
        if theirNumbers["corruptions"] == nil, theirNumbers["check-errors"] == nil { #expect(ourNumbers["leaks"] == nil, what) }
        #expect(ourNumbers["leaks", default: 0] <= before["leaks", default: 0], what)
    }

    @Test("a bitmap that cannot be loaded does not keep the rest from being repaired, and is still there")
    func damagedBitmap() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", path, "1M"])
        try run("qemu-img", ["bitmap", "--add", path, "b0"])
        try run("qemu-io", ["-f", "qcow2", "-c", "write 0 128k", path])
        var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        func word(_ offset: Int) -> Int { bytes[offset..<(offset + 8)].reduce(0) { $0 << 8 | Int($1) } }
        var place = word(100) >> 32
        while word(place) >> 32 != 0x2385_2875 { place += 8 + (word(place) & 0xffff_ffff).roundedUp(to: 8) }
        // The table names a cluster behind the end, and the refcounts are gone.
        let table = word(word(place + 24)), block = word(word(48))
        bytes[table + 3] = 1
        for index in 0..<64 { bytes[block + index] = 0 }
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        let report = try await onContext { context in try await Self.repair(imageOptions(path), [.leaks, .errors], context) }
        #expect(report.corruptions == 1 && report.leaks == 0 && report.corruptionsFixed > 5, "\(report)")
        let after = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        #expect(after[table..<table + 8] == bytes[table..<table + 8])
    }

    @Test("leaks alone are repaired without anything else", arguments: 0..<8 as Range<UInt64>)
    func leaks(seed: UInt64) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        var random = SeededGenerator(seed: seed)
        try CheckTests.build(path, 4096, 16, &random)
        var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        func word(_ offset: Int) -> UInt64 { bytes[offset..<(offset + 8)].reduce(0) { $0 << 8 | UInt64($1) } }
        let block = Int(word(Int(word(48))))
        // Free clusters that are counted; with odd seeds also clusters in use that are counted twice, whose copied flags follow.
        let free = bytes.count / 4096 + 3
        for cluster in free..<(free + 5) { bytes[block + 2 * cluster + 1] = 1 }
        bytes += [UInt8](repeating: 0, count: 10 * 4096)
        if seed % 2 == 1 { bytes[block + 2 * Int.random(in: 6..<12, using: &random) + 1] += 1 }
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        let before = try CheckTests.qemu(path)?["leaks"] ?? 0
        let report = try await onContext { context in try await Self.repair(imageOptions(path), .leaks, context) }
        #expect(before >= 5 && report.leaksFixed == before && report.leaks == 0 && report.corruptions == 0)
        try run("qemu-img", ["check", path])
    }

    @Test("corruption keeps clusters that seem lost when only leaks are to be repaired")
    func leaksBesideDamage() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        var random = SeededGenerator(seed: 3)
        try CheckTests.build(path, 4096, 16, &random)
        var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        let l1 = bytes[40..<48].reduce(0) { $0 << 8 | Int($1) }
        bytes[l1 + 6] |= 2  // the table's offset is no longer aligned: all its clusters seem to be lost
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        let report = try await onContext { context in try await Self.repair(imageOptions(path), .leaks, context) }
        #expect(report.leaks > 0 && report.leaksFixed == 0 && report.corruptions > 0)
    }

    @Test("a repair that a crash ends at any point has done nothing, or all", arguments: 0..<10 as Range<UInt64>)
    func crash(seed: UInt64) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        var random = SeededGenerator(seed: seed + 900)
        try Self.build(path, seed: seed, &random)
        let history = try ImageDamage.apply(path, 3, &random)
        let initial = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        let clusterSize = seed % 2 == 0 ? 4096 : 512
        let recorder = Recorder(disk: initial)
        defer { recorder.forget() }
        let before = try await onContext { context in try await Self.contents(recorder.imageOptions(readOnly: true), clusterSize, context) }
        let report = try await onContext { context in try await Self.repair(recorder.imageOptions(), [.leaks, .errors], context) }
        let log = recorder.state.withLock { $0.log }
        try #require(log.count > 3)
        for point in 0...log.count {
            let state = CrashTests.crash(initial, log[..<point], &random)
            let again = Recorder(disk: state)
            defer { again.forget() }
            again.state.withLock { ($0.isSlow, $0.isRecording) = (false, false) }
            let found = try await onContext { context in try await Self.contents(again.imageOptions(readOnly: true), clusterSize, context) }
            for (number, (a, b)) in zip(found, before).enumerated() {
                // What could be read can be read, and is the same.
                if let b, a != b { throw ToolFailure(description: "seed \(seed), crash after \(point): cluster \(number) reads otherwise; \(history)") }
            }
            let second = try await onContext { context in try await Self.repair(again.imageOptions(), [.leaks, .errors], context) }
            #expect(second.corruptions == report.corruptions && second.checkErrors == 0, "\(history)")
        }
    }

    @Test("a repair in which one call to the file fails has made nothing worse, and the next one finishes it", arguments: 0..<6 as Range<UInt64>)
    func everyFailure(seed: UInt64) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        // Odd ones have clusters of 512 bytes and so the most tables.
        var random = SeededGenerator(seed: 2 * seed + 901)
        try Self.build(path, seed: 2 * seed + 1, &random)
        let history = try ImageDamage.apply(path, 3, &random)
        let initial = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        let dry = Recorder(disk: initial)
        defer { dry.forget() }
        let before = try await onContext { context in try await Self.contents(dry.imageOptions(readOnly: true), 512, context) }
        dry.state.withLock { ($0.countsReads, $0.calls) = (true, 0) }
        let report = try await onContext { context in try await Self.repair(dry.imageOptions(), [.leaks, .errors], context) }
        let calls = dry.state.withLock { $0.calls }
        try #require(calls > 10)
        for call in stride(from: 1, through: calls, by: max(1, calls / 50)) {
            let fault = CrashProof.Fault.allCases[call % CrashProof.Fault.allCases.count]
            let recorder = Recorder(disk: initial)
            defer { recorder.forget() }
            recorder.state.withLock { state in
                (state.failAt, state.isRecording, state.countsReads) = (call, false, true)
                (state.failure, state.failsHalfway) = (fault.error, fault == .short)
            }
            try await onContext { context in
                // A read that fails is counted in the report; what else fails is the repair's own failure.
                do { _ = try await Self.repair(recorder.imageOptions(), [.leaks, .errors], context) } catch {}
                recorder.state.withLock { ($0.failAt, $0.countsReads) = (nil, false) }
                let found = try await Self.contents(recorder.imageOptions(readOnly: true), 512, context)
                for (number, (a, b)) in zip(found, before).enumerated() {
                    if let b, a != b { throw ToolFailure(description: "seed \(seed), call \(call) of \(calls) fails with \(fault): cluster \(number) reads otherwise; \(history)") }
                }
                let second = try await Self.repair(recorder.imageOptions(), [.leaks, .errors], context)
                #expect(second.corruptions == report.corruptions && second.checkErrors == report.checkErrors, "seed \(seed), call \(call) of \(calls) fails with \(fault): \(history)")
            }
        }
    }

    @Test("an image that was not closed is written to after its refcounts were rebuilt, as QEMU does it, in place and elsewhere", arguments: [0, 2 << 20])
    func dirty(start: Int) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", path, "4M"])
        // Killed after its writes: the refcounts were never written.
        let writer = try StrataTesting.run("qemu-io", ["-f", "qcow2", "-c", "write -P 7 0 1M", "-c", "flush", "-c", "sigraise 9", path])
        #expect(writer.ending == .signalled(SIGKILL))
        let found = try run("qemu-img", ["check", path], allowedStatus: [0, 1, 2, 3])
        #expect(found.contains("refcount=0 reference=1"))
        let before = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        try await onContext { context in
            let read = try await withImage(imageOptions(path, readOnly: true), context) { disk in try await disk.readBytes(at: 5000, 3) }
            #expect(read == [7, 7, 7])
            let after = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
            #expect(after == before)
            try await withImage(imageOptions(path), context) { disk in
                try await disk.writeBytes([UInt8](repeating: 5, count: 200_000), at: start)
                let read = try await disk.readBytes(at: 300_000, 3)
                #expect(read == [7, 7, 7])
            }
        }
        // The new refcounts may be the last thing in the file.
        try run("qemu-img", ["check", path])
        try run("qemu-io", ["-r", "-f", "qcow2", "-c", "read -P 7 256k 768k", "-c", "read -P 5 \(start) 200000", path])
        let described = try run("qemu-img", ["info", "--output=json", path])
        #expect(!described.contains("\"dirty-flag\": true"))
    }

    @Test("the corrupt mark keeps writers away until a repair takes it")
    func corruptMark() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", path, "1M"])
        var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        bytes[79] |= 2
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        try await onContext { context in
            await #expect(throws: BlockError.self) { try await withImage(imageOptions(path), context) { _ in } }
            _ = try await Self.repair(imageOptions(path), .errors, context)
            try await withImage(imageOptions(path), context) { disk in try await disk.writeBytes([1], at: 0) }
        }
        try run("qemu-img", ["check", path])
    }
}
