import StrataTesting
import Testing

/// One point of the matrix: how an image is laid out.
struct Layout: CustomTestStringConvertible, Sendable {
    let clusterSize: Int
    let compat: String

    var options: String { "cluster_size=\(clusterSize),compat=\(compat)" }
    var testDescription: String { options }

    static let few: [Layout] = [
        Layout(clusterSize: 512, compat: "1.1"), Layout(clusterSize: 4096, compat: "0.10"),
        Layout(clusterSize: 65536, compat: "1.1"), Layout(clusterSize: 2 << 20, compat: "1.1"),
    ]
    static let all: [Layout] = (9...21).flatMap { bits in ["0.10", "1.1"].map { Layout(clusterSize: 1 << bits, compat: $0) } }
    static let chosen = extendedRun ? all : few
}

@Suite("images between Strata and QEMU")
struct ImageExchangeTests {
    @Test("an image that Strata creates is what QEMU would have created", arguments: Layout.chosen)
    func createMatchesQEMU(layout: Layout) throws {
        let folder = try TemporaryFolder()
        try Strata.mustImg("create", "-f", "qcow2", "-o", layout.options, "ours.qcow2", "100M", in: folder)
        try QEMU.mustFindClean("ours.qcow2", in: folder)
        try QEMU.img("create", "-f", "qcow2", "-o", layout.options, "theirs.qcow2", "100M", in: folder)
        func information(_ name: String) throws -> [String: JSON]? {
            let information = try JSON(parsing: try QEMU.img("info", "-f", "qcow2", "--output=json", name, in: folder).output)
            return SampleImages.portable(information).object?.filter { $0.key != "filename" }
        }
        #expect(try information("ours.qcow2") == information("theirs.qcow2"))
    }

    @Test(
        "every create option reaches the image",
        arguments: ["refcount_bits=1", "refcount_bits=64", "lazy_refcounts=on", "compat=v3", "compat=0.10", "cluster_size=1k,refcount_bits=8"])
    func createOptions(options: String) throws {
        let folder = try TemporaryFolder()
        try Strata.mustImg("create", "-f", "qcow2", "-o", options, "ours.qcow2", "10M", in: folder)
        try QEMU.img("create", "-f", "qcow2", "-o", options, "theirs.qcow2", "10M", in: folder)
        try QEMU.mustFindClean("ours.qcow2", in: folder)
        let ours = try JSON(parsing: try QEMU.img("info", "--output=json", "ours.qcow2", in: folder).output)
        let theirs = try JSON(parsing: try QEMU.img("info", "--output=json", "theirs.qcow2", in: folder).output)
        #expect(ours["format-specific"] == theirs["format-specific"])
        #expect(ours["virtual-size"] == theirs["virtual-size"])
    }

    @Test("create and info print what QEMU's tool prints", arguments: ["10M", "1G", "12345678"])
    func humanOutput(size: String) throws {
        let folder = try TemporaryFolder()
        let ours = try Strata.mustImg("create", "-f", "qcow2", "disk.qcow2", size, in: folder)
        let ourInformation = try Strata.mustImg("info", "disk.qcow2", in: folder)
        try mustRun("rm", ["disk.qcow2"], in: folder.url)
        let theirs = try QEMU.img("create", "-f", "qcow2", "disk.qcow2", size, in: folder)
        let theirInformation = try QEMU.img("info", "disk.qcow2", in: folder)
        #expect(ours.text == theirs.text)
        // The child node's paragraph and the size on the host's disk depend on how a file was written.
        func portable(_ text: String) -> [Substring] {
            text.split(separator: "\n").prefix { !$0.hasPrefix("Child node") }.filter { !$0.hasPrefix("disk size") }
        }
        #expect(portable(ourInformation.text) == portable(theirInformation.text))
    }

    @Test("what Strata converts to qcow2, QEMU reads, and finds clean", arguments: Layout.chosen)
    func convertForQEMU(layout: Layout) throws {
        let folder = try TemporaryFolder()
        let disk = mixedContents(3 << 20 | 512, seed: runSeed &+ UInt64(layout.clusterSize))
        try folder.write(disk, to: "source.raw")
        try Strata.mustImg("convert", "-f", "raw", "-O", "qcow2", "-o", layout.options, "source.raw", "ours.qcow2", in: folder)
        try QEMU.mustFindClean("ours.qcow2", in: folder)
        #expect(firstDifference(try QEMU.contents(of: "ours.qcow2", in: folder), disk) == nil, "seed \(runSeed)")
    }

    @Test("what QEMU writes, Strata reads and finds clean", arguments: Layout.chosen, [false, true])
    func readFromQEMU(layout: Layout, compressed: Bool) throws {
        let folder = try TemporaryFolder()
        let disk = mixedContents(3 << 20 | 512, seed: runSeed &+ UInt64(layout.clusterSize) &+ 1)
        try folder.write(disk, to: "source.raw")
        try mustRun(
            "qemu-img",
            ["convert", "-f", "raw", "-O", "qcow2", "-o", layout.options] + (compressed ? ["-c"] : []) + ["source.raw", "theirs.qcow2"],
            in: folder.url)
        try Strata.mustImg("check", "-f", "qcow2", "theirs.qcow2", in: folder)
        try Strata.mustImg("convert", "-f", "qcow2", "-O", "raw", "theirs.qcow2", "out.raw", in: folder)
        #expect(firstDifference(try folder.read("out.raw"), disk) == nil, "seed \(runSeed)")
    }

    @Test("Strata converts raw to qcow2 and back, and skips zeros", arguments: Layout.chosen)
    func roundTrip(layout: Layout) throws {
        let folder = try TemporaryFolder()
        var disk = [UInt8](repeating: 0, count: 16 << 20)
        disk.replaceSubrange((4 << 20)..<(5 << 20), with: mixedContents(1 << 20, seed: runSeed &+ 7))
        try folder.write(disk, to: "source.raw")
        try Strata.mustImg("convert", "-f", "raw", "-O", "qcow2", "-o", layout.options, "source.raw", "there.qcow2", in: folder)
        try Strata.mustImg("convert", "-f", "qcow2", "-O", "raw", "there.qcow2", "back.raw", in: folder)
        #expect(firstDifference(try folder.read("back.raw"), disk) == nil, "seed \(runSeed)")
        let check = try QEMU.mustFindClean("there.qcow2", in: folder)
        #expect((check["allocated-clusters"]?.integer ?? 0) * layout.clusterSize <= (1 << 20) + 2 * layout.clusterSize, "zeros were allocated")
    }

    @Test("a chain that QEMU made reads the same through Strata", arguments: 1...3)
    func chainFromQEMU(depth: Int) throws {
        let folder = try TemporaryFolder()
        var generator = SeededGenerator(seed: runSeed &+ UInt64(depth))
        let sizes = (0...depth).map { _ in Int.random(in: 2000...6000, using: &generator) * 512 }
        for level in 0...depth {
            let backing = level == 0 ? [] : ["-b", "level\(level - 1).qcow2", "-F", "qcow2"]
            let cluster = ["512", "4k", "64k"].randomElement(using: &generator) ?? "64k"
            try mustRun(
                "qemu-img", ["create", "-f", "qcow2", "-o", "cluster_size=\(cluster)"] + backing + ["level\(level).qcow2", "\(sizes[level])"],
                in: folder.url)
            let writes = (0..<12).map { _ in
                let offset = Int.random(in: 0..<sizes[level] - 4096, using: &generator)
                let count = Int.random(in: 1...min(200_000, sizes[level] - offset), using: &generator)
                return generator.next() % 4 == 0 ? "write -z \(offset & ~511) \(count & ~511 | 512)" : "write -P \(generator.next() % 256) \(offset) \(count)"
            }
            try mustRun("qemu-io", ["-f", "qcow2"] + writes.flatMap { ["-c", $0] } + ["level\(level).qcow2"], in: folder.url)
        }
        try Strata.mustImg("convert", "-f", "qcow2", "-O", "raw", "level\(depth).qcow2", "ours.raw", in: folder)
        let theirs = try QEMU.contents(of: "level\(depth).qcow2", in: folder)
        #expect(firstDifference(try folder.read("ours.raw"), theirs) == nil, "seed \(runSeed)")
    }
}
