import BlockGraph
import Foundation
import IOCore
import QCOW2
import QCOW2Testing
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

@Suite("amending qcow2 images")
struct AmendTests {
    static func amend(_ options: BlockdevOptions, _ change: @escaping @Sendable (inout ImageAmendment) -> Void) async throws {
        try await onContext { context in
            try await withImage(options, context) { disk in try await QCOW2Testing.amend(disk, change) }
        }
    }

    /// An image by QEMU with all kinds of clusters.
    static func make(_ path: String, _ options: String, _ base: String? = nil) throws {
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", options] + (base.map { ["-b", $0, "-F", "raw"] } ?? []) + [path, "6M"])
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 1 100k 300k", "-c", "write -P 2 2M 64k", "-c", "write -P 5 4M 130k", path])
        if !options.contains("compat=0.10") { try run("qemu-io", ["-f", "qcow2", "-c", "write -z 128k 128k", "-c", "write -z 5M 333k", path]) }
        if !options.contains("data_file"), !options.contains("2M"), !options.contains("refcount_bits=1") || options.contains("refcount_bits=16") {
            try run("qemu-io", ["-f", "qcow2", "-c", "write -c -P 7 1M 64k", "-c", "write -c -P 8 1088k 64k", path])
        }
    }

    private static func contents(_ path: String, _ scratch: Scratch) throws -> [UInt8] {
        try run("qemu-img", ["convert", "-O", "raw", path, scratch.file("contents.raw")])
        return [UInt8](try Data(contentsOf: URL(fileURLWithPath: scratch.file("contents.raw"))))
    }

    private struct Step {
        var text: String
        var change: @Sendable (inout ImageAmendment) -> Void
    }

    /// A random amendment, for us and for QEMU.
    private static func step(_ random: inout SeededGenerator) -> Step {
        switch Int.random(in: 0..<6, using: &random) {
        case 0: return Step(text: "compat=0.10") { $0.version = .v2 }
        case 1: return Step(text: "compat=1.1") { $0.version = .v3 }
        case 2:
            let isOn = Bool.random(using: &random)
            return Step(text: "lazy_refcounts=\(isOn ? "on" : "off")") { $0.lazyRefcounts = isOn }
        case 3:
            let size = Int.random(in: 1...20, using: &random) << 19
            return Step(text: "size=\(size)") { $0.size = size }
        case 4: return Step(text: "compat=1.1,refcount_bits=16") { ($0.version, $0.refcountBits) = (.v3, 16) }
        default:
            let bits = 1 << Int.random(in: 0...6, using: &random)
            return Step(text: "refcount_bits=\(bits)") { $0.refcountBits = bits }
        }
    }

    @Test("random amendments are accepted, refused and leave the same image as QEMU's", arguments: 0..<8)
    func sameAsQEMU(seed: UInt64) async throws {
        let scratch = try Scratch()
        var random = SeededGenerator(seed: seed)
        let (ours, theirs, base) = (scratch.file("ours.qcow2"), scratch.file("theirs.qcow2"), scratch.file("base.raw"))
        try run("qemu-img", ["create", "-q", "-f", "raw", base, "5M"])
        try run("qemu-io", ["-f", "raw", "-c", "write -P 9 0 5M", base])
        let options = ["compat=1.1", "compat=0.10", "cluster_size=4k", "cluster_size=512", "cluster_size=8k", "refcount_bits=64", "lazy_refcounts=on", "cluster_size=16k"]
        for path in [ours, theirs] { try Self.make(path, options[Int(seed)], seed % 2 == 0 ? base : nil) }
        if seed >= 6 { for path in [ours, theirs] { try run("qemu-img", ["snapshot", "-c", "s", path]) } }
        for _ in 0..<7 {
            let step = Self.step(&random)
            // A snapshot's zero clusters cannot be expanded by us.
            if seed >= 6, step.text.contains("0.10") { continue }
            var message = ""
            do { try await Self.amend(imageOptions(ours), step.change) } catch let error as BlockError { message = error.message }
            let output = try run("qemu-img", ["amend", "-o", step.text, theirs], allowedStatus: [0, 1])
            #expect(output.isEmpty == message.isEmpty, "seed \(seed), \(step.text): '\(message)', QEMU: '\(output)'")
            if !output.isEmpty, !output.contains("refcount of") { #expect(output.contains(message), "\(step.text)") }
            #expect(try CreateTests.facts(ours) == CreateTests.facts(theirs), "seed \(seed), after \(step.text)")
            let check = try run("qemu-img", ["check", ours], allowedStatus: [0, 1, 2, 3])
            #expect(check.contains("No errors were found"), "seed \(seed), after \(step.text): \(check)")
            #expect(firstDifference(try Self.contents(ours, scratch), try Self.contents(theirs, scratch)) == nil, "seed \(seed), after \(step.text)")
        }
    }

    @Test("an image can be written to after each amendment, without being opened anew")
    func usableAfterwards() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try Self.make(path, "cluster_size=4k")
        let start = DiskModel(size: 6 << 20, clusterSize: 4096, seed: 4)
        var model = start
        model.bytes = try Self.contents(path, scratch)
        let before = model
        let after = try await onContext { context in
            try await withImage(imageOptions(path, l2CacheSize: 8192), context) { disk in
                var model = before
                let changes: [@Sendable (inout ImageAmendment) -> Void] = [
                    { $0.refcountBits = 64 }, { $0.lazyRefcounts = true }, { $0.refcountBits = 16 }, { $0.version = .v2 }, { ($0.version, $0.refcountBits) = (.v3, 8) },
                ]
                for (number, change) in changes.enumerated() {
                    try await QCOW2Testing.amend(disk, change)
                    // Version 2 cannot have zeroes over anything, but there is no backing file here.
                    for _ in 0..<30 { _ = try await model.step(disk) }
                    let all = try await disk.readBytes(at: 0, model.bytes.count)
                    #expect(firstDifference(all, model.bytes) == nil, "after amendment \(number)")
                }
                return model
            }
        }
        #expect(try run("qemu-img", ["check", path]).contains("No errors were found"))
        #expect(firstDifference(try Self.contents(path, scratch), after.bytes) == nil)
    }

    @Test("what cannot be amended is refused in QEMU's words")
    func refusals() async throws {
        let scratch = try Scratch()
        func message(_ options: String, _ change: @escaping @Sendable (inout ImageAmendment) -> Void) async throws -> String {
            let path = scratch.file("a.qcow2")
            let data = scratch.file("data.raw")
            try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", options.replacingOccurrences(of: "DATA", with: data), path, "1M"])
            do {
                try await Self.amend(imageOptions(path), change)
                return "amended"
            } catch let error as BlockError { return error.message }
        }
        #expect(try await message("compat=1.1") { $0.backingFile = "x" } == "Cannot amend the backing file")
        #expect(try await message("compat=1.1") { $0.dataFile = "x" } == "data-file can only be set for images that use an external data file")
        #expect(try await message("data_file=DATA") { $0.dataFileRaw = true } == "data-file-raw cannot be set on existing images")
        #expect(try await message("extended_l2=on") { $0.version = .v2 } == "Cannot downgrade an image with incompatible features 0x10 set")
        #expect(try await message("compat=0.10") { $0.refcountBits = 8 }.hasPrefix("Refcount widths other than 16 bits require"))
        #expect(try await message("compat=1.1") { ($0.version, $0.refcountBits) = (.v2, 8) } == "compat=0.10 requires refcount_bits=16")
        #expect(try await message("compat=0.10") { $0.lazyRefcounts = true }.hasPrefix("Lazy refcounts only supported with"))
        #expect(try await message("compat=1.1") { $0.refcountBits = 3 } == "Refcount width must be a power of two and may not exceed 64 bits")
    }

    @Test("the data file's name, and the promise that it is raw, can be changed")
    func dataFile() async throws {
        let scratch = try Scratch()
        let (path, first, second) = (scratch.file("a.qcow2"), scratch.file("first.raw"), scratch.file("second.raw"))
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "data_file=\(first),data_file_raw=on", path, "1M"])
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 4 0 1M", path])
        try FileManager.default.copyItem(atPath: first, toPath: second)
        try await Self.amend(imageOptions(path)) { ($0.dataFile, $0.dataFileRaw) = (second, false) }
        try FileManager.default.removeItem(atPath: first)
        let info = try run("qemu-img", ["info", path])
        #expect(info.contains("data file: \(second)") && info.contains("data file raw: false"))
        #expect(try run("qemu-img", ["check", path]).contains("No errors were found"))
        #expect(try Self.contents(path, scratch) == [UInt8](repeating: 4, count: 1 << 20))
    }

    @Test("a crash at any moment of an amendment leaves a consistent image with all of its data", arguments: 0..<6)
    func crashes(seed: UInt64) async throws {
        let scratch = try Scratch()
        var random = SeededGenerator(seed: seed)
        let path = scratch.file("a.qcow2")
        let options = ["cluster_size=512,refcount_bits=16", "cluster_size=4k", "compat=0.10,cluster_size=512", "cluster_size=4k,refcount_bits=64", "cluster_size=64k", "cluster_size=512,refcount_bits=8"][Int(seed)]
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", options, path, "1M"])
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 1 10k 90k", "-c", "write -P 2 600k 64k", path])
        if seed != 2 { try run("qemu-io", ["-f", "qcow2", "-c", "write -z 64k 64k", "-c", "write -z 900k 40k", path]) }
        let expected = try Self.contents(path, scratch)
        let initial = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        let recorder = Recorder(disk: initial)
        defer { recorder.forget() }
        let changes: [@Sendable (inout ImageAmendment) -> Void] = [
            { $0.version = .v3 }, { $0.refcountBits = 1 }, { $0.lazyRefcounts = true }, { $0.refcountBits = 32 }, { ($0.version, $0.refcountBits) = (.v2, 16) }, { $0.version = .v3 },
        ]
        try await onContext { context in
            try await withImage(recorder.imageOptions(l2CacheSize: 8192), context) { disk in
                for change in changes { try await QCOW2Testing.amend(disk, change) }
            }
        }
        let log = recorder.state.withLock { $0.log }
        var states: [(point: Int, disk: [UInt8])] = []
        for point in 1...log.count { states.append((point, CrashTests.crash(initial, log[..<point], &random))) }
        let all = states
        try await onContext { context in
            for (point, disk) in all {
                if let problem = try await CrashTests.judge(disk, point, [], expected, context) {
                    throw ToolFailure(description: "seed \(seed), crash after \(point) of \(log.count) host operations: \(problem)")
                }
            }
        }
        for index in stride(from: 0, to: states.count, by: max(1, states.count / 10)) {
            let crashed = scratch.file("crashed.qcow2")
            try Data(states[index].disk).write(to: URL(fileURLWithPath: crashed))
            try run("qemu-img", ["check", crashed], allowedStatus: [0, 3])
        }
    }

    @Test("whichever call fails while the refcounts change their width, the image is sound and takes what is written next or refuses it", arguments: [1, 64])
    func failingWidthChange(bits: Int) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", path, "1M"])
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 1 0 300k", path])
        let image = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        // Call 0 does not come: it counts the others.
        var (call, calls, failures) = (0, 0, 0)
        while call <= calls {
            let recorder = Recorder(disk: image)
            defer { recorder.forget() }
            recorder.state.withLock { ($0.isRecording, $0.countsReads) = (false, true) }
            let failing = call
            let outcome: (hasFailed: Bool, written: Int, calls: Int)
            outcome = try await onContext { context in
                let (graph, options) = (BlockGraph(context: context, drivers: DriverRegistry(testDrivers)), recorder.imageOptions())
                try await graph.add(options)
                let disk = try await graph.makeBackend(named: "test", on: "disk", PermissionGrant(used: [.consistentRead, .write, .resize], shared: .all))
                recorder.state.withLock { ($0.calls, $0.failAt) = (0, failing) }
                var outcome = (hasFailed: false, written: 0, calls: 0)
                do { try await QCOW2Testing.amend(disk) { $0.refcountBits = bits } } catch { outcome.hasFailed = true }
                outcome.calls = recorder.state.withLock { state in
                    state.failAt = nil
                    return state.calls
                }
                do {
                    for position in stride(from: 400 << 10, to: 900 << 10, by: 65536) {
                        try await disk.writeBytes([UInt8](repeating: 2, count: 65536), at: position)
                        outcome.written = position + 65536 - 400 << 10
                    }
                } catch { outcome.written = 0 }
                await graph.release(disk)
                do { try await graph.closeAll() } catch { outcome.written = 0 }
                return outcome
            }
            if call == 0 { calls = outcome.calls }
            if outcome.hasFailed { failures += 1 }
            try Data(recorder.state.withLock { $0.disk }).write(to: URL(fileURLWithPath: path))
            // Clusters that are lost cost space and nothing else.
            try run("qemu-img", ["check", path], allowedStatus: [0, 3])
            let text = try run("qemu-io", ["-f", "qcow2", "-c", "read -P 1 0 300k", "-c", "read -P \(outcome.written > 0 ? 2 : 0) 400k 1", path])
            if outcome.written > 0 || outcome.hasFailed == false { #expect(!text.contains("verification failed"), "call \(call): \(text)") }
            call += 1
        }
        #expect(failures > 0, "\(failures) of \(calls)")
    }
}
