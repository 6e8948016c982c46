import BlockGraph
import Foundation
import IOCore
import ManagedObjects
import QCOW2Testing
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

/// The driver over a disk with a volatile cache: what was not flushed may be lost, in part, in any order.
@Suite("qcow2 after a crash")
struct CrashTests {
    /// One guest operation of a history.
    struct Step: Sendable {
        var range: Range<Int>
        /// What the guest wrote; empty for zeroes.
        var data: [UInt8]
        var isFlush: Bool
        /// Host operations in the log before it began and after it was acknowledged.
        var logStart: Int
        var logEnd: Int
        var text: String

        func value(at position: Int) -> UInt8 { data.isEmpty ? 0 : data[position - range.lowerBound] }
    }

    struct Case: Sendable, CustomTestStringConvertible {
        let seed: UInt64
        let clusterSize: Int
        var refcountBits = 16
        var hasSubclusters = false
        var testDescription: String { "seed \(seed), \(clusterSize) bytes per cluster, \(refcountBits) refcount bits\(hasSubclusters ? ", subclusters" : "")" }
    }

    static let cases: [Case] = (0..<10).flatMap { seed -> [Case] in
        [
            Case(seed: UInt64(seed), clusterSize: 512, refcountBits: [16, 64, 1, 8][seed % 4]),
            Case(seed: UInt64(seed + 100), clusterSize: 4096, refcountBits: [64, 16][seed % 2]),
        ]
    } + (0..<4).map { Case(seed: UInt64($0 + 200), clusterSize: 16384, hasSubclusters: true) }

    /// An image by QEMU with data, zeroes and compressed clusters, as bytes, and what a guest sees in it.
    static func makeImage(_ test: Case, _ scratch: Scratch) throws -> (disk: [UInt8], guest: [UInt8]) {
        let path = scratch.file("base.qcow2")
        let size = (test.hasSubclusters ? 20 : 48) * test.clusterSize
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=\(test.clusterSize),refcount_bits=\(test.refcountBits),extended_l2=\(test.hasSubclusters ? "on" : "off"),compression_type=\(test.seed % 3 == 0 ? "zstd" : "zlib")", path, String(size)])
        var commands: [String] = []
        if test.refcountBits > 1 { commands += ["-c", "write -c -P 21 \(3 * test.clusterSize) \(test.clusterSize)"] }
        commands += ["-c", "write -P 22 \(5 * test.clusterSize) \(6 * test.clusterSize)", "-c", "write -z \(9 * test.clusterSize) \(3 * test.clusterSize)"]
        try run("qemu-io", ["-f", "qcow2"] + commands + [path])
        let raw = scratch.file("base.raw")
        try run("qemu-img", ["convert", "-O", "raw", path, raw])
        return ([UInt8](try Data(contentsOf: URL(fileURLWithPath: path))), [UInt8](try Data(contentsOf: URL(fileURLWithPath: raw))))
    }

    /// Plays a random history on an image over one disk.
    static func play(_ disk: BlockBackend, _ recorder: Recorder, _ start: DiskModel, _ count: Int) async throws -> [Step] {
        try await play(disk, start, count) { recorder.state.withLock { $0.log.count } }
    }

    /// Plays a random history.
    /// - Parameter now: how many host operations there were so far.
    static func play(_ disk: BlockBackend, _ start: DiskModel, _ count: Int, compresses: Bool = true, now: () -> Int) async throws -> [Step] {
        var model = start
        var steps: [Step] = []
        for _ in 0..<count {
            var range = model.range(alignment: 512)
            var step = Step(range: range, data: [], isFlush: false, logStart: now(), logEnd: 0, text: "")
            switch Int.random(in: 0..<(compresses ? 15 : 12), using: &model.random) {
            case 12..<15:
                range = model.range(alignment: model.clusterSize)
                step.range = range
                step.data = CompressedWriteTests.data(range.count, &model)
                step.text = "compress \(range)"
                try await disk.writeBytes(step.data, at: range.lowerBound, flags: .compressed)
            case 0..<6:
                step.data = model.data(range.count)
                step.text = "write \(range)"
                try await disk.writeBytes(step.data, at: range.lowerBound)
            case 6..<8:
                step.text = "zero \(range)"
                let unmap = Bool.random(using: &model.random)
                try await disk.writeZeroes(GuestRange(GuestOffset(range.lowerBound), byteCount: range.count), flags: unmap ? .mayUnmap : [])
            case 8..<10:
                range = model.range(alignment: model.clusterSize)
                step.range = range
                step.text = "discard \(range)"
                try await disk.discard(GuestRange(GuestOffset(range.lowerBound), byteCount: range.count))
            default:
                step.range = 0..<0
                step.isFlush = true
                step.text = "flush"
                try await disk.flush()
            }
            step.logEnd = now()
            steps.append(step)
        }
        return steps
    }

    /// The disk after a crash: everything before the last completed flush of the file, and any part of what came after.
    static func crash(_ initial: [UInt8], _ log: ArraySlice<RecordedOperation>, _ random: inout SeededGenerator) -> [UInt8] {
        var lastFlush = log.startIndex
        for index in log.indices { if case .flush = log[index] { lastFlush = index } }
        var disk = initial
        for index in log.indices {
            let isSafe = index < lastFlush
            switch log[index] {
            case .flush: break
            case .resize(let size):
                if !isSafe, Bool.random(using: &random) { continue }
                if size < disk.count { disk.removeLast(disk.count - size) } else { disk += [UInt8](repeating: 0, count: size - disk.count) }
            case .write(let offset, let bytes):
                var position = 0
                let loses = isSafe ? 0 : Int.random(in: 0..<3, using: &random)
                if loses == 2 { continue }
                while position < bytes.count {
                    // Torn at sectors: each one arrives or does not.
                    let end = min(bytes.count, (offset + position).roundedDown(to: 512) + 512 - offset)
                    if loses == 0 || Bool.random(using: &random) {
                        if offset + end > disk.count { disk += [UInt8](repeating: 0, count: offset + end - disk.count) }
                        disk.replaceSubrange((offset + position)..<(offset + end), with: bytes[position..<end])
                    }
                    position = end
                }
            }
        }
        return disk
    }

    @Test("no order of losing unflushed writes corrupts the image or loses flushed data", arguments: cases)
    func anyCrash(test: Case) async throws {
        let scratch = try Scratch()
        let (initial, guest) = try Self.makeImage(test, scratch)
        let recorder = Recorder(disk: initial)
        defer { recorder.forget() }
        var start = DiskModel(size: guest.count, clusterSize: test.clusterSize, seed: test.seed)
        start.bytes = guest
        let model = start
        let steps = try await onContext { context in
            try await withImage(recorder.imageOptions(l2CacheSize: 8192), context) { disk in
                let steps = try await Self.play(disk, recorder, model, 45)
                return steps
            }
        }
        let log = recorder.state.withLock { $0.log }
        var random = SeededGenerator(seed: test.seed ^ 0xabcdef)
        var states: [(point: Int, disk: [UInt8])] = []
        for point in stride(from: 1, through: log.count, by: max(1, log.count / 60)) {
            states.append((point, Self.crash(initial, log[..<point], &random)))
        }
        let all = states
        try await onContext { context in
            for (point, disk) in all {
                let problem = try await Self.judge(disk, point, steps, guest, context)
                if let problem {
                    throw ToolFailure(description: "\(test.testDescription), crash after \(point) of \(log.count) host operations: \(problem); history: \(steps.prefix { $0.logStart < point }.map(\.text).suffix(15))")
                }
            }
        }
        // QEMU has its own opinion on a few of them.
        for state in [states.count / 3, states.count / 2, states.count - 1] where states.indices.contains(state) {
            let path = scratch.file("crashed.qcow2")
            try Data(states[state].disk).write(to: URL(fileURLWithPath: path))
            try run("qemu-img", ["check", path], allowedStatus: [0, 3])
        }
    }

    /// How an image is opened.
    struct Opening: Sendable {
        var objects = ObjectRegistry()
        /// Nil for an image that is not encrypted.
        var secret: String?

        func options(_ recorder: Recorder, readOnly: Bool = false, l2CacheSize: Int? = nil) -> BlockdevOptions {
            let plain = recorder.imageOptions(readOnly: readOnly, l2CacheSize: l2CacheSize)
            guard let secret, case .qcow2(var own) = plain.branch else { return plain }
            own.encrypt = BlockdevQcow2Encryption(.luks(QCryptoBlockOptionsLUKS(keySecret: secret)))
            return BlockdevOptions(.qcow2(own), nodeName: plain.nodeName, discard: plain.discard, readOnly: readOnly)
        }
    }

    /// What is wrong with a crashed image, if anything.
    static func judge(
        _ disk: [UInt8], _ point: Int, _ steps: [Step], _ guest: [UInt8], _ context: IOContext, _ opening: Opening = Opening()
    ) async throws -> String? {
        let crashed = Recorder(disk: disk)
        defer { crashed.forget() }
        crashed.state.withLock { ($0.isSlow, $0.isRecording) = (false, false) }
        let expected = Expectation(steps, point, guest)
        return try await withImage(opening.options(crashed, readOnly: true), context, objects: opening.objects) { backend in
            guard let checking = backend.node.checking else { return "no check" }
            let report = try await checking.check(repair: [])
            if report.corruptions > 0 || report.checkErrors > 0 { return "\(report.corruptions) corruptions: \(report.messages.prefix(4))" }
            return expected.difference(in: try await backend.readBytes(at: 0, guest.count))
        }
    }

    /// What a guest may find after a crash.
    struct Expectation {
        /// What it saw at the last flush that was acknowledged.
        private var flushed: [UInt8]
        private let later: [Step]

        /// - Parameters:
        ///   - point: host operations before the crash.
        ///   - guest: what it saw before the first step.
        init(_ steps: [Step], _ point: Int, _ guest: [UInt8]) {
            let begun = steps.prefix { $0.logStart < point }
            let lastFlush = begun.lastIndex { $0.isFlush && $0.logEnd <= point } ?? 0
            flushed = guest
            later = begun[lastFlush...].filter { !$0.isFlush }
            for step in begun.prefix(upTo: lastFlush) where !step.isFlush {
                for position in step.range { flushed[position] = step.value(at: position) }
            }
        }

        func difference(in found: [UInt8]) -> String? {
            for position in found.indices where found[position] != flushed[position] {
                // A byte may also be what any unflushed operation made of it.
                if later.contains(where: { $0.range.contains(position) && $0.value(at: position) == found[position] }) { continue }
                return "byte \(position) is \(found[position]), flushed was \(flushed[position])"
            }
            return nil
        }
    }

    @Test("a host operation that fails costs no acknowledged data and leaves a consistent image", arguments: cases.prefix(8) + cases.suffix(1))
    func everyFailure(test: Case) async throws {
        let scratch = try Scratch()
        let (initial, guest) = try Self.makeImage(test, scratch)
        // First without a fault, to know how many host operations there are.
        let dry = Recorder(disk: initial)
        defer { dry.forget() }
        var start = DiskModel(size: guest.count, clusterSize: test.clusterSize, seed: test.seed + 7)
        start.bytes = guest
        let model = start
        try await onContext { context in
            try await withImage(dry.imageOptions(), context) { disk in _ = try await Self.play(disk, dry, model, 20) }
        }
        let calls = dry.state.withLock { $0.calls }
        try await onContext { context in
            for failAt in stride(from: 1, through: calls, by: max(1, calls / 40)) {
                if let problem = try await Self.failOnce(failAt, initial, model, context) {
                    throw ToolFailure(description: "\(test.testDescription), host operation \(failAt) of \(calls) fails: \(problem)")
                }
            }
        }
    }

    /// Plays a history in which one host operation fails; the guest retries what failed, as a guest does.
    static func failOnce(_ failAt: Int, _ initial: [UInt8], _ start: DiskModel, _ context: IOContext, _ opening: Opening = Opening()) async throws -> String? {
        let recorder = Recorder(disk: initial)
        defer { recorder.forget() }
        recorder.state.withLock { ($0.failAt, $0.isRecording) = (failAt, false) }
        let graph = BlockGraph(context: context, drivers: DriverRegistry(testDrivers), objects: opening.objects)
        try await graph.add(opening.options(recorder))
        let backend = try await graph.makeBackend(named: "test", on: "disk", PermissionGrant(used: .all, shared: .all))
        var model = start
        var expected = start.bytes
        for _ in 0..<20 {
            let kind = Int.random(in: -3..<10, using: &model.random)
            let range = model.range(alignment: kind < 0 ? model.clusterSize : 512)
            let data = kind < 0 ? CompressedWriteTests.data(range.count, &model) : model.data(range.count)
            for attempt in 0..<2 {
                do {
                    switch kind {
                    case ..<0: try await backend.writeBytes(data, at: range.lowerBound, flags: .compressed)
                    case 0..<6: try await backend.writeBytes(data, at: range.lowerBound)
                    case 6..<8: try await backend.writeZeroes(GuestRange(GuestOffset(range.lowerBound), byteCount: range.count), flags: .mayUnmap)
                    default: try await backend.flush()
                    }
                    break
                } catch {
                    if attempt == 1 { return "the retry failed too: \(error)" }
                }
            }
            if kind < 8 { expected.replaceSubrange(range, with: kind < 6 ? data : [UInt8](repeating: 0, count: range.count)) }
        }
        let live = try await backend.readBytes(at: 0, expected.count)
        if let difference = firstDifference(live, expected) { return "before closing \(difference)" }
        await graph.release(backend)
        // The fault may hit closing; the image must bear that too.
        do { try await graph.closeAll() } catch {
            do { _ = error }
            return try await consistency(recorder, nil, opening, context)
        }
        return try await consistency(recorder, expected, opening, context)
    }

    private static func consistency(_ recorder: Recorder, _ expected: [UInt8]?, _ opening: Opening, _ context: IOContext) async throws -> String? {
        recorder.state.withLock { ($0.failAt, $0.isSlow) = (nil, false) }
        return try await withImage(opening.options(recorder, readOnly: true), context, objects: opening.objects) { backend in
            guard let checking = backend.node.checking else { return "no check" }
            let report = try await checking.check(repair: [])
            if report.corruptions > 0 || report.checkErrors > 0 { return "\(report.corruptions) corruptions: \(report.messages.prefix(4))" }
            guard let expected else { return nil }
            return firstDifference(try await backend.readBytes(at: 0, expected.count), expected)
        }
    }
}
