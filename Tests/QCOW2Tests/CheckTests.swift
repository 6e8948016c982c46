import BlockGraph
import Foundation
import QCOW2Testing
import StrataBase
import StrataTesting
import Synchronization
import Testing

@Suite("checking qcow2 images")
struct CheckTests {
    /// The numbers of a report under QEMU's names; zeroes are left out, as QEMU leaves them out.
    static func numbers(_ report: CheckReport) -> [String: Int] {
        let all: [(String, Int?)] = [
            ("check-errors", report.checkErrors), ("corruptions", report.corruptions), ("leaks", report.leaks),
            ("image-end-offset", report.imageEndOffset), ("total-clusters", report.totalClusters),
            ("allocated-clusters", report.allocatedClusters), ("fragmented-clusters", report.fragmentedClusters),
            ("compressed-clusters", report.compressedClusters),
        ]
        return all.reduce(into: [:]) { if let value = $1.1, value != 0 { $0[$1.0] = value } }
    }

    static func qemu(_ path: String) throws -> [String: Int]? {
        let text = try run("qemu-img", ["check", "--output=json", path], allowedStatus: [0, 1, 2, 3])
        guard let start = text.firstIndex(of: "{"), let end = text.lastIndex(of: "}"),
            let object = try JSONSerialization.jsonObject(with: Data(text[start...end].utf8)) as? [String: Any]
        else { return nil }
        return object.compactMapValues { $0 as? Int }.filter { $0.value != 0 }
    }

    static func ours(_ path: String) async throws -> CheckReport {
        try await onContext { context in
            try await withImage(imageOptions(path, readOnly: true), context) { disk in
                guard let checking = disk.node.checking else { throw ToolFailure(description: "no check") }
                return try await checking.check(repair: [])
            }
        }
    }

    static func build(_ path: String, _ clusterSize: Int, _ refcountBits: Int, _ random: inout SeededGenerator) throws {
        try build(path, clusterSize, "refcount_bits=\(refcountBits)", &random)
    }

    static func build(_ path: String, _ clusterSize: Int, _ options: String, _ random: inout SeededGenerator) throws {
        let size = 200 * clusterSize + 1536
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=\(clusterSize),\(options)", path, String(size)])
        var commands: [String] = []
        for _ in 0..<25 {
            let cluster = Int.random(in: 0..<190, using: &random)
            let count = Int.random(in: 1...8, using: &random)
            let verb = ["write -P 7", "write -P 9", "write -z", "write -zu", "discard", clusterSize > 512 ? "write -c -P 4" : "write -P 4"].randomElement(using: &random) ?? ""
            let clusters = verb.contains("-c") ? 1 : count
            commands += ["-c", "\(verb) \(cluster * clusterSize) \(clusters * clusterSize)"]
        }
        try run("qemu-io", ["-f", "qcow2", "-d", "unmap"] + commands + [path], allowedStatus: [0, 1])  // a compressed write over data fails: fine
    }

    @Test("healthy images have the numbers that QEMU gives them", arguments: [512, 4096, 65536], [1, 4, 16, 64])
    func healthy(clusterSize: Int, refcountBits: Int) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        var random = SeededGenerator(seed: UInt64(clusterSize + refcountBits))
        if refcountBits == 1 {
            // Compressed clusters share host clusters, which one bit cannot count.
            try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=\(clusterSize),refcount_bits=1", path, "1M"])
            try run("qemu-io", ["-f", "qcow2", "-c", "write -P 3 100k 300k", path])
        } else {
            try Self.build(path, clusterSize, refcountBits, &random)
        }
        if refcountBits == 16 { try run("qemu-img", ["snapshot", "-c", "one", path]) }
        if refcountBits == 64 { try run("qemu-img", ["bitmap", "--add", "--enable", path, "b0"]) }
        let report = try await Self.ours(path)
        #expect(Self.numbers(report) == (try Self.qemu(path)))
        #expect(report.corruptions == 0 && report.leaks == 0)
    }

    @Test("damaged tables are counted as QEMU counts them", arguments: 0..<48 as Range<UInt64>)
    func damaged(seed: UInt64) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        var random = SeededGenerator(seed: seed + 100)
        let clusterSize = seed % 2 == 0 ? 4096 : 512
        try Self.build(path, clusterSize, 16, &random)
        if seed % 3 == 0 { try run("qemu-img", ["snapshot", "-c", "one", path]) }
        let history = try ImageDamage.apply(path, Int.random(in: 1...5, using: &random), &random)
        let expected = try Self.qemu(path)
        let report = try await Self.ours(path)
        #expect(Self.numbers(report) == expected, "\(history) \(report.messages.filter { !$0.contains("Leaked") && !$0.contains("refcount=0 ") })")
    }

    /// Features that a check and a repair have to know of. DATA stands for a file's name.
    static let kinds: [(clusterSize: Int, options: String)] = [
        (16384, "extended_l2=on"), (4096, "data_file=DATA"), (16384, "extended_l2=on,data_file=DATA"), (512, "compat=0.10"), (4096, "refcount_bits=2"), (512, "refcount_bits=64"),
    ]

    /// An image of one of the kinds; some have a bitmap or a snapshot.
    static func build(kind: Int, _ path: String, _ random: inout SeededGenerator) throws {
        let (clusterSize, options) = kinds[kind]
        try build(path, clusterSize, options.replacing("DATA", with: path + ".data"), &random)
        if !options.contains("0.10"), Bool.random(using: &random) { try run("qemu-img", ["bitmap", "--add", "-g", "512", path, "b0"]) }
        if !options.contains("DATA"), !options.contains("refcount_bits=2"), Bool.random(using: &random) { try run("qemu-img", ["snapshot", "-c", "one", path]) }
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 77 10k 20k", path])
    }

    @Test("the same with subclusters, data files, version 2, narrow and wide refcounts, and bitmaps", arguments: 0..<36 as Range<Int>)
    func damagedKinds(seed: Int) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        var random = SeededGenerator(seed: UInt64(seed) + 5000)
        try Self.build(kind: seed % Self.kinds.count, path, &random)
        let history = try ImageDamage.apply(path, Int.random(in: 1...3, using: &random), &random)
        let expected = try Self.qemu(path)
        let report = try await Self.ours(path)
        #expect(Self.numbers(report) == expected, "\(Self.kinds[seed % Self.kinds.count]) \(history) \(report.messages.filter { !$0.contains("Leaked") && !$0.contains("refcount=0 ") })")
    }

    @Test("a check that is cancelled ends, and tells how far it came before")
    func cancelled() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=512,preallocation=metadata", path, "4M"])
        try await onContext { context in
            try await withImage(imageOptions(path, readOnly: true), context) { disk in
                guard let checking = disk.node.checking else { throw ToolFailure(description: "no check") }
                let heard = Mutex<[Int]>([])
                let check = Task {
                    try await checking.check(repair: []) { done, total in
                        heard.withLock { $0.append(done) }
                        if done == total / 2 { withUnsafeCurrentTask { $0?.cancel() } }
                    }
                }
                let error = await #expect(throws: BlockError.self) { _ = try await check.value }
                #expect(error?.code == .cancelled)
                #expect(heard.withLock { $0.count } > 10 && heard.withLock { $0.count } < 100)
            }
        }
    }
}
