import Foundation
import StrataTesting
import Testing

/// Crafted images, each a sound one with a field that promises too much. Telling what is in an image costs little, whatever the image says.
@Suite("describing hostile images")
struct HostileInfoTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let testDescription: String
        /// Where numbers are put, how many bytes they have, and which.
        let fields: [(offset: Int, size: Int, value: UInt64)]
        /// Bytes that the file claims to have; a hole.
        var length: Int?
    }

    static let cases: [Case] = [
        Case(testDescription: "the largest L1 table of a file without end", fields: [(36, 4, 4 << 20), (24, 8, 1 << 50)], length: 1 << 40),
        Case(testDescription: "the largest refcount table", fields: [(56, 4, 128)], length: 1 << 40),
        Case(testDescription: "65536 snapshots", fields: [(60, 4, 65536), (64, 8, 1 << 20)], length: 1 << 40),
        Case(testDescription: "65536 snapshots behind the end", fields: [(60, 4, 65536), (64, 8, 1 << 50)]),
        Case(testDescription: "too many snapshots", fields: [(60, 4, 0xffff_ffff), (64, 8, 1 << 20)]),
        Case(testDescription: "a snapshot table that does not exist", fields: [(60, 4, 3), (64, 8, 0x7fff_ffff_ffff_0000)]),
        Case(testDescription: "a virtual size of 2^63", fields: [(24, 8, 1 << 63)]),
        Case(testDescription: "an L1 table at 2^63", fields: [(40, 8, 1 << 63)]),
        Case(testDescription: "a refcount table at the header", fields: [(48, 8, 0)]),
        Case(testDescription: "clusters of one byte", fields: [(20, 4, 0)]),
        Case(testDescription: "clusters of 2^31 bytes", fields: [(20, 4, 31)]),
        Case(testDescription: "clusters of 2^63 bytes", fields: [(20, 4, 63)]),
        Case(testDescription: "refcounts of 2^64 bits", fields: [(96, 4, 64)]),
        Case(testDescription: "a header of 4 GiB", fields: [(100, 4, 0xffff_fff8)]),
        Case(testDescription: "a backing file's name of 4 GiB", fields: [(8, 8, 512), (16, 4, 0xffff_ffff)]),
        Case(testDescription: "a backing file's name behind the cluster", fields: [(8, 8, 65536), (16, 4, 1023)]),
        Case(testDescription: "an extension of 4 GiB", fields: [(112, 4, 0x1234_5678), (116, 4, 0xffff_ffff)]),
        Case(testDescription: "extensions that fill the cluster", fields: [(112, 4, 0x6803_f857), (116, 4, 60000)]),
        Case(testDescription: "unknown features", fields: [(72, 8, 0xffff_ffff_ffff_ffe0)]),
        Case(testDescription: "encryption of an unknown kind", fields: [(32, 4, 0xffff_ffff)]),
        Case(testDescription: "every number is the largest", fields: (2..<13).map { ($0 * 8, 8, .max) }),
    ]

    /// The same of LUKS headers. What each field may be is in `LUKSHeaderTests`.
    static let keyCases: [Case] = [
        Case(testDescription: "a master key of 4 GiB", fields: [(108, 4, 0xffff_ffff)]),
        Case(testDescription: "a payload behind 2 TiB", fields: [(104, 4, 0xffff_ffff)]),
        Case(testDescription: "4294967295 iterations for the master key", fields: [(164, 4, 0xffff_ffff)]),
        Case(testDescription: "4294967295 iterations for each slot", fields: (0..<8).map { (208 + 48 * $0 + 4, 4, 0xffff_ffff) }),
        Case(testDescription: "4294967295 stripes in each slot", fields: (0..<8).map { (208 + 48 * $0 + 44, 4, 0xffff_ffff) }),
        Case(testDescription: "every slot at the end of the address space", fields: (0..<8).map { (208 + 48 * $0 + 40, 4, 0xffff_ffff) }),
        Case(testDescription: "names without an end", fields: (1..<13).map { (8 * $0, 8, 0x6161_6161_6161_6161) }),
        Case(testDescription: "every number is the largest", fields: (13..<74).map { ($0 * 8, 8, .max) }),
        Case(testDescription: "a file of 1 TiB with nothing in it but the header", fields: [(104, 4, 0x7fff_ffff)], length: 1 << 40),
    ]

    static func image(_ test: Case, _ folder: TemporaryFolder, format: String = "qcow2") throws -> String {
        if format == "luks" {
            try QEMU.img("create", "-q", "--object", "secret,id=s,data=abc", "-f", "luks", "-o", "key-secret=s,iter-time=10", "a.qcow2", "1M", in: folder)
        } else {
            try QEMU.img("create", "-q", "-f", format, "a.qcow2", "1M", in: folder)
        }
        let path = folder.url.appending(path: "a.qcow2").path
        let file = try FileHandle(forUpdating: URL(filePath: path))
        for (offset, size, value) in test.fields {
            try file.seek(toOffset: UInt64(offset))
            try file.write(contentsOf: Data((0..<size).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * (size - 1 - $0))) }))
        }
        if let length = test.length { try file.truncate(atOffset: UInt64(length)) }
        try file.close()
        return path
    }

    /// Runs a program and prints its ending, its processor time in milliseconds and the most memory that it had, in KiB.
    static let meter = """
        import resource, subprocess, sys
        run = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(run.returncode, int(1000 * (used.ru_utime + used.ru_stime)), used.ru_maxrss, len(run.stderr.decode().strip().splitlines()))
        """

    @Test("costs less than 200 ms of processor time and 64 MiB, and ends with an answer or one error", arguments: cases)
    func info(test: Case) throws { try Self.measure(test, format: "qcow2") }

    @Test("nor does it for headers of LUKS that ask for years of work", arguments: keyCases)
    func infoOfKeys(test: Case) throws { try Self.measure(test, format: "luks") }

    private static func measure(_ test: Case, format: String) throws {
        let folder = try TemporaryFolder()
        let path = try Self.image(test, folder, format: format)
        let run = try mustRun("python3", ["-c", Self.meter, Strata.binary, "img", "info", "-f", format, path], in: folder.url)
        let numbers = run.text.split(separator: " ").compactMap { Int($0.trimmingCharacters(in: .whitespacesAndNewlines)) }
        try #require(numbers.count == 4)
        #expect(numbers[0] == 0 || numbers[0] == 1)
        // A debug build takes several times as long as what users run, which the extended run asks.
        let limit = Strata.binary.contains("/release/") ? 200 : 800
        #expect(numbers[1] < limit, "\(numbers[1]) ms")
        #expect(numbers[2] < 64 << 10, "\(numbers[2]) KiB")
        #expect(numbers[0] == 0 || numbers[3] == 1)
    }

    @Test("nor the data file that it names, by info and by check", arguments: ["secret", "json:{\"driver\":\"file\",\"filename\":\"secret\"}", "nbd://localhost:1/x"])
    func opensNoDataFile(name: String) throws {
        let folder = try TemporaryFolder()
        try QEMU.img("create", "-q", "-f", "qcow2", "-o", "data_file=placeholder-with-a-long-name-so-that-every-name-fits", "a.qcow2", "1M", in: folder)
        try QEMU.img("create", "-q", "-f", "raw", "secret", "64k", in: folder)
        let path = folder.url.appending(path: "a.qcow2").path
        var bytes = try folder.read("a.qcow2")
        // The name in the extension, and its length in front of it.
        let place = try #require(bytes.indices.first { bytes[$0...].starts(with: Array("placeholder".utf8)) })
        let length = Int(bytes[place - 1])
        let filled = Array(name.utf8)
        bytes[place - 1] = UInt8(filled.count)
        for index in 0..<(length + 7) / 8 * 8 { bytes[place + index] = index < filled.count ? filled[index] : 0 }
        // What followed the longer name moves up.
        let end = place + (length + 7) / 8 * 8, newEnd = place + (filled.count + 7) / 8 * 8
        let rest = Array(bytes[end..<4096])
        bytes.replaceSubrange(newEnd..<newEnd + rest.count, with: rest)
        try folder.write(bytes, to: "a.qcow2")
        for command in ["info", "check"] {
            let run = try mustRun("strace", ["-f", "-e", "trace=openat,open,connect", Strata.binary, "img", command, "-f", "qcow2", path], in: folder.url)
            #expect(command == "check" || run.text.contains("data file: "), "\(run)")
            #expect(!run.errorText.contains("/secret\"") && !run.errorText.contains("\"secret\"") && !run.errorText.contains("connect("), "\(run)")
        }
        // Whoever reads the disk opens a file of that name, and nothing that a description asks for.
        if name != "secret" {
            let read = try run(Strata.binary, ["img", "convert", "-f", "qcow2", "-O", "raw", path, "out.raw"], in: folder.url)
            #expect(read.ending == .exited(1) && read.errorText.split(separator: "\n").count == 1, "\(read)")
        }
    }

    @Test("nothing is opened that an image names", arguments: ["json:{\"driver\":\"file\",\"filename\":\"secret\"}", "secret", "nbd://localhost:1/x", "file:secret"])
    func opensNothing(name: String) throws {
        let folder = try TemporaryFolder()
        try QEMU.img("create", "-q", "-f", "raw", "secret", "64k", in: folder)
        try QEMU.img("create", "-q", "-u", "-f", "qcow2", "-b", "secret", "-F", "raw", "a.qcow2", "1M", in: folder)
        let path = folder.url.appending(path: "a.qcow2").path
        let file = try FileHandle(forUpdating: URL(filePath: path))
        let place = [UInt8](try file.read(upToCount: 512) ?? Data())[8..<16].reduce(0) { $0 << 8 | UInt64($1) }
        try file.seek(toOffset: place)
        try file.write(contentsOf: Data(name.utf8))
        try file.seek(toOffset: 16)
        try file.write(contentsOf: Data([0, 0, 0, UInt8(name.utf8.count)]))
        try file.close()
        let run = try mustRun("strace", ["-f", "-e", "trace=openat,open,connect", Strata.binary, "img", "info", "-f", "qcow2", path], in: folder.url)
        #expect(run.text.contains("backing file: ") && !run.errorText.contains("/secret\"") && !run.errorText.contains("\"secret\"") && !run.errorText.contains("connect("))
    }
}
