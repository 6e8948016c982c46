import BlockGraph
import Foundation
import QCOW2Testing
import StorageSchema
import StrataBase
import StrataTesting
import Testing

/// Extended L2 entries and external data files, with QEMU's tools as the other side.
@Suite("qcow2 with extended L2 entries and data files against QEMU")
struct FeatureMatrixTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var clusterSize = 65536
        var hasSubclusters = false
        var hasDataFile = false
        var isRaw = false
        var preallocation = "off"
        var depth = 0

        var testDescription: String { "\(options), \(depth) backing files" }
        var options: String {
            "cluster_size=\(clusterSize),extended_l2=\(hasSubclusters ? "on" : "off"),preallocation=\(preallocation)"
                + (hasDataFile ? ",data_file_raw=\(isRaw ? "on" : "off")" : "")
        }
        var size: Int { max(1 << 20, min(clusterSize * 5, 12 << 20)) + 3 * 512 }
        var unit: Int { hasSubclusters ? clusterSize / 32 : clusterSize }
        /// Parts of a compressed cluster cannot be discarded: whoever wants to know what discards do to subclusters does without compression.
        /// QEMU 10.0 cannot read all that it compresses itself in clusters of 2 MiB.
        var hasCompression: Bool { !hasDataFile && clusterSize == 65536 }
        func model(seed: UInt64) -> DiskModel {
            var model = DiskModel(size: size, clusterSize: unit, seed: seed)
            model.discardUnit = hasCompression ? clusterSize : unit
            return model
        }
        var seed: UInt64 { UInt64(clusterSize + depth * 3 + (hasSubclusters ? 1 : 0) + (hasDataFile ? 2 : 0) + (isRaw ? 4 : 0) + preallocation.count * 8) }
    }

    static let cases: [Case] =
        [16384, 65536, 2 << 20].flatMap { size in (0...2).map { Case(clusterSize: size, hasSubclusters: true, depth: $0) } }
        + [Case(hasSubclusters: true, preallocation: "metadata"), Case(hasSubclusters: true, preallocation: "metadata", depth: 1)]
        + [512, 65536].flatMap { size in (0...1).map { Case(clusterSize: size, hasDataFile: true, depth: $0) } }
        + [Case(hasDataFile: true, isRaw: true), Case(hasDataFile: true, isRaw: true, preallocation: "falloc"), Case(hasDataFile: true, preallocation: "metadata")]
        + [Case(hasSubclusters: true, hasDataFile: true), Case(hasSubclusters: true, hasDataFile: true, depth: 1), Case(hasSubclusters: true, hasDataFile: true, isRaw: true)]

    /// An image by QEMU, with data, zeroes, holes and, where there can be, compressed clusters, over images of the same kind.
    static func make(_ test: Case, _ scratch: Scratch, _ model: inout DiskModel) throws -> String {
        var previous: String?
        for level in 0...test.depth {
            let name = scratch.file("layer\(level).qcow2")
            let size = level == test.depth ? test.size : (test.size / 4 * (3 + level)).roundedDown(to: 512)
            var options = test.options
            if level < test.depth { options = options.replacingOccurrences(of: "preallocation=\(test.preallocation)", with: "preallocation=off") }
            if test.hasDataFile { options += ",data_file=\(scratch.file("data\(level).raw"))" }
            try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", options] + (previous.map { ["-b", $0, "-F", "qcow2"] } ?? []) + [name, String(size)])
            var visible = model.bytes
            if size < visible.count { MatrixTests.fill(&visible, size, visible.count, 0) }
            var commands: [String] = []
            for _ in 0..<14 {
                var start = Int.random(in: 0..<(size / 512), using: &model.random) * 512
                var count = min(Int.random(in: 1...max(8, test.clusterSize / 256), using: &model.random) * 512, size - start)
                let pattern = UInt8.random(in: 1...255, using: &model.random)
                switch Int.random(in: 0..<7, using: &model.random) {
                case 0..<2:
                    commands += ["-c", "write -z \(start) \(count)"]
                    MatrixTests.fill(&visible, start, count, 0)
                case 2:
                    commands += ["-c", "write -z -u \(start) \(count)"]
                    MatrixTests.fill(&visible, start, count, 0)
                case 3 where test.hasCompression:
                    start = start.roundedDown(to: test.clusterSize)
                    count = min(test.clusterSize, size - start)
                    guard count == test.clusterSize else { continue }
                    // QEMU compresses into clusters that are not there yet only.
                    commands += ["-c", "discard \(start) \(count)", "-c", "write -c -P \(pattern) \(start) \(count)"]
                    MatrixTests.fill(&visible, start, count, pattern)
                default:
                    commands += ["-c", "write -P \(pattern) \(start) \(count)"]
                    MatrixTests.fill(&visible, start, count, pattern)
                }
            }
            try run("qemu-io", ["-f", "qcow2"] + commands + [name])
            model.bytes = visible
            previous = name
        }
        return previous ?? ""
    }

    /// What `qemu-img map --output=json` says of one layer: adjoining runs that say the same are one.
    struct Run: Equatable, Decodable, CustomStringConvertible {
        var start: Int, length: Int, depth: Int
        var present: Bool, zero: Bool, data: Bool, compressed: Bool
        var offset: Int?
        var description: String { "[\(start)+\(length) d\(depth) \(present ? "p" : "")\(zero ? "z" : "")\(data ? "d" : "")\(compressed ? "c" : "") \(offset ?? -1)]" }
    }

    static func qemuMap(_ path: String) throws -> [Run] {
        try JSONDecoder().decode([Run].self, from: Data(try run("qemu-img", ["map", "-f", "qcow2", "--output=json", path]).utf8))
    }

    static func ourMap(_ disk: BlockBackend) async throws -> [Run] {
        var runs: [Run] = []
        var position = 0
        while position < disk.length {
            let (status, depth, _) = try await disk.blockStatus(of: GuestRange(GuestOffset(position), byteCount: disk.length - position))
            runs.append(
                Run(
                    start: position, length: status.byteCount, depth: depth, present: status.flags.contains(.allocated), zero: status.flags.contains(.zero),
                    data: status.flags.contains(.data), compressed: status.flags.contains(.compressed),
                    offset: status.flags.contains(.offsetValid) ? status.offset.rawValue : nil))
            position += status.byteCount
        }
        return runs
    }

    /// Leaves out what depends on holes in the host file: which of them a tool looks for is its own affair.
    static func withoutHoles(_ runs: [Run]) -> [Run] {
        var merged: [Run] = []
        for run in runs {
            var next = run
            if next.data { next.zero = false }
            if let last = merged.last, last.depth == next.depth, last.present == next.present, last.zero == next.zero, last.data == next.data,
                last.compressed == next.compressed, (last.offset == nil && next.offset == nil) || last.offset.map({ $0 + last.length }) == next.offset
            {
                merged[merged.count - 1].length += next.length
            } else {
                merged.append(next)
            }
        }
        return merged
    }

    @Test("what QEMU has written reads, maps and checks the same through us", arguments: cases)
    func readsQEMU(test: Case) async throws {
        let scratch = try Scratch()
        var model = test.model(seed: test.seed)
        let path = try Self.make(test, scratch, &model)
        let expected = model.bytes
        try Self.expectContents(path, expected, scratch, "as QEMU made it")
        let (map, check) = (try Self.qemuMap(path), try CheckTests.qemu(path))
        try await onContext { context in
            try await withImage(imageOptions(path, readOnly: true), context) { disk in
                let all = try await disk.readBytes(at: 0, test.size)
                #expect(firstDifference(all, expected) == nil)
                var random = SeededGenerator(seed: 5)
                for _ in 0..<50 {
                    let start = Int.random(in: 0..<test.size, using: &random)
                    let count = Int.random(in: 1...min(100_000, test.size - start), using: &random)
                    let part = try await disk.readBytes(at: start, count)
                    #expect(firstDifference(part, Array(expected[start..<(start + count)])) == nil)
                }
                let ours = try await Self.ourMap(disk)
                if test.depth == 0 { #expect(Self.withoutHoles(ours) == Self.withoutHoles(map)) }
                let report = try await disk.node.checking?.check(repair: [])
                #expect(report.map(CheckTests.numbers) == check, "\(report?.messages ?? [])")
            }
        }
    }

    @Test("what we write over QEMU's image is what QEMU reads, and its check finds nothing", arguments: cases)
    func writesForQEMU(test: Case) async throws {
        let scratch = try Scratch()
        var model = test.model(seed: test.seed ^ 0x55)
        let path = try Self.make(test, scratch, &model)
        try Self.expectContents(path, model.bytes, scratch, "as QEMU made it")
        try await Self.writeAndCompare(path, model, test, scratch)
    }

    @Test("what we make and write is what QEMU reads, and its check finds nothing", arguments: cases.filter { $0.depth == 0 })
    func writesOwn(test: Case) async throws {
        let scratch = try Scratch()
        let path = scratch.file("own.qcow2")
        let data = test.hasDataFile ? scratch.file("own.raw") : nil
        try await CreateTests.create(path, dataFile: data) {
            ($0.size, $0.clusterSize, $0.extendedL2) = (test.size, test.clusterSize, test.hasSubclusters)
            if test.hasDataFile { ($0.dataFile, $0.dataFileRaw) = (.reference("data"), test.isRaw) }
            $0.preallocation = PreallocMode(rawValue: test.preallocation)
        }
        let theirs = scratch.file("theirs.qcow2")
        try run("qemu-img", [
            "create", "-q", "-f", "qcow2", "-o", test.options + (test.hasDataFile ? ",data_file=\(scratch.file("theirs.raw"))" : ""), theirs, String(test.size),
        ])
        #expect(try CreateTests.facts(path).replacingOccurrences(of: "own.", with: "theirs.") == CreateTests.facts(theirs))
        let (our, their) = (try Self.withoutHoles(Self.qemuMap(path)), try Self.withoutHoles(Self.qemuMap(theirs)))
        #expect(our.map { [$0.start, $0.length, $0.present ? 1 : 0, $0.data ? 1 : 0] } == their.map { [$0.start, $0.length, $0.present ? 1 : 0, $0.data ? 1 : 0] })
        try await Self.writeAndCompare(path, test.model(seed: test.seed ^ 0x77), test, scratch)
        // Whatever the image says about it, a raw data file is the disk.
        if test.isRaw, let data { try run("qemu-img", ["compare", "-f", "raw", "-F", "qcow2", data, path]) }
    }

    /// What QEMU reads.
    private static func expectContents(_ path: String, _ expected: [UInt8], _ scratch: Scratch, _ when: String) throws {
        let raw = scratch.file("out.raw")
        try run("qemu-img", ["convert", "-O", "raw", path, raw])
        let read = [UInt8](try Data(contentsOf: URL(fileURLWithPath: raw)))
        guard let difference = firstDifference(read, expected) else { return }
        let position = zip(read, expected).enumerated().first { $0.element.0 != $0.element.1 }?.offset ?? 0
        let around = try qemuMap(path).filter { $0.start <= position + 65536 && $0.start + $0.length >= position - 65536 }
        Issue.record("\(when), QEMU reads otherwise \(difference): \(around)")
    }

    /// Random requests, reopened once in between; then QEMU checks and reads the image.
    private static func writeAndCompare(_ path: String, _ start: DiskModel, _ test: Case, _ scratch: Scratch) async throws {
        let steps = test.clusterSize > 65536 ? 40 : 120
        let after = try await onContext { context in
            var model = start
            for _ in 0..<2 {
                let before = model
                model = try await withImage(imageOptions(path, l2CacheSize: 8192), context) { disk in
                    var model = before
                    var history: [String] = []
                    do {
                        for number in 0..<steps {
                            if number % 12 == 11, test.hasCompression {
                                let unit = test.clusterSize
                                let start = Int.random(in: 0..<(test.size / unit), using: &model.random) * unit
                                let data = CompressedWriteTests.data(unit, &model)
                                model.bytes.replaceSubrange(start..<(start + unit), with: data)
                                try await disk.writeBytes(data, at: start, flags: .compressed)
                                history.append("compress \(start) \(unit)")
                            }
                            history.append(try await model.step(disk))
                        }
                    } catch { throw ToolFailure(description: "seed \(test.seed): \(error) after \(history.suffix(12))") }
                    let all = try await disk.readBytes(at: 0, test.size)
                    if let difference = firstDifference(all, model.bytes) { throw ToolFailure(description: "seed \(test.seed): final read differs \(difference)") }
                    return model
                }
            }
            return model
        }
        let check = try run("qemu-img", ["check", path], allowedStatus: [0, 1, 2, 3])
        #expect(check.contains("No errors were found"), "\(check)")
        try await onContext { context in
            try await withImage(imageOptions(path, readOnly: true), context) { disk in
                let all = try await disk.readBytes(at: 0, test.size)
                #expect(firstDifference(all, after.bytes) == nil, "opened anew")
            }
        }
        try expectContents(path, after.bytes, scratch, "as we have written it")
        let (map, numbers) = (try Self.qemuMap(path), try CheckTests.qemu(path))
        try await onContext { context in
            try await withImage(imageOptions(path, readOnly: true), context) { disk in
                let ours = try await Self.ourMap(disk)
                if test.depth == 0 { #expect(Self.withoutHoles(ours) == Self.withoutHoles(map)) }
                let report = try await disk.node.checking?.check(repair: [])
                #expect(report.map(CheckTests.numbers) == numbers)
            }
        }
    }

    @Test("subclusters that are not written are taken from below, not copied")
    func copiesSubclustersOnly() async throws {
        let scratch = try Scratch()
        let (base, top) = (scratch.file("base.raw"), scratch.file("top.qcow2"))
        try run("qemu-img", ["create", "-q", "-f", "raw", base, "1M"])
        try run("qemu-io", ["-f", "raw", "-c", "write -P 7 0 1M", base])
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "-b", base, "-F", "raw", top])
        try await onContext { context in
            try await withImage(imageOptions(top), context) { disk in
                try await disk.writeBytes([UInt8](repeating: 9, count: 100), at: 65536 + 2048 * 5 + 10)
                try await disk.writeZeroes(GuestRange(GuestOffset(2048 * 3), byteCount: 4096))
            }
        }
        let map = try Self.qemuMap(top).filter { $0.depth == 0 }
        #expect(map.map { [$0.start, $0.length] } == [[2048 * 3, 4096], [65536 + 2048 * 5, 2048]])
        #expect(map.map(\.zero) == [true, false])
    }

    @Test("a hostile subcluster bitmap is an error, and marks the image when it is written to")
    func hostileBitmap() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "extended_l2=on", path, "1M"])
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 1 0 64k", path])
        var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        func word(_ at: Int) -> Int { bytes[at..<(at + 8)].reduce(0) { $0 << 8 | Int($1) } }
        let l2 = word(word(40)) & 0x00ff_ffff_ffff_fe00
        bytes[l2 + 8] = 0x80
        bytes[l2 + 12] = 0x80
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        try await onContext { context in
            try await withImage(imageOptions(path), context) { disk in
                await #expect(throws: BlockError.self) { try await disk.readBytes(at: 0, 512) }
                await #expect(throws: BlockError.self) { try await disk.writeBytes([1], at: 0) }
                let report = try await disk.node.checking?.check(repair: [])
                #expect((report?.corruptions ?? 0) > 0)
            }
        }
        #expect(try run("qemu-img", ["info", path]).contains("corrupt: true"))
    }
}

extension FeatureMatrixTests {
    @Test("a write behind the end of a file that ends inside its last cluster is kept when the image is closed")
    func cutShort() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "extended_l2=on", path, "1M"])
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 1 0 2k", path])
        let length = try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int ?? 0
        let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        // As another writer would leave it that does not fill the cluster.
        try file.truncate(atOffset: UInt64(length.roundedDown(to: 65536) == length ? length - 65536 + 2048 : length))
        try file.close()
        try await onContext { context in
            try await withImage(imageOptions(path), context) { disk in
                try await disk.writeBytes([UInt8](repeating: 7, count: 2048), at: 40960)
            }
        }
        try run("qemu-io", ["-f", "qcow2", "-c", "read -P 1 0 2k", "-c", "read -P 7 40k 2k", path])
    }
}
