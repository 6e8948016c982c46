import BlockGraph
import Foundation
import StorageSchema
import StrataBase
import StrataTesting
import Testing

/// Images whose fields lie. Each is answered, or refused with one sentence; none takes much memory or time, and none stops the program.
@Suite("hostile images of other programs")
struct HostileImageTests {
    /// A sound image with other numbers in some places.
    struct Damage: Sendable, CustomTestStringConvertible {
        let image: ForeignImage
        let testDescription: String
        /// Where, in bytes from the start; what.
        var fields: [(offset: Int, bytes: [UInt8])] = []
        /// The length of the file afterwards: shorter, or longer by a hole.
        var length: Int?
        /// What is said about it; nil: it is described all the same.
        var refusal: String?

        init(_ image: ForeignImage, _ description: String, _ fields: [(offset: Int, bytes: [UInt8])] = [], length: Int? = nil, refusal: String? = nil) {
            self.image = image
            testDescription = "\(image.format.rawValue): \(description)"
            (self.fields, self.length, self.refusal) = (fields, length, refusal)
        }

        func make(in folder: TemporaryFolder) throws {
            let options = ["size=\(image.size)"] + (image.options.isEmpty ? [] : [image.options])
            try QEMU.img("create", "-q", "-f", image.format.rawValue, "-o", options.joined(separator: ","), ForeignImage.name, in: folder)
            var bytes = try folder.read(ForeignImage.name)
            for (offset, new) in fields {
                let place = offset < 0 ? bytes.count + offset : offset
                bytes.replaceSubrange(place..<place + new.count, with: new)
            }
            if image.format == .vpc, !testDescription.contains("checksum") { HostileImageTests.correctChecksum(&bytes) }
            if image.format == .vhdx, !testDescription.contains("checksum") { HostileImageTests.correctVHDXChecksums(&bytes) }
            try folder.write(bytes, to: ForeignImage.name)
            if let length {
                let file = try FileHandle(forUpdating: folder.url.appending(path: ForeignImage.name))
                try file.truncate(atOffset: UInt64(length))
                try file.close()
            }
        }
    }

    static func little<I: FixedWidthInteger>(_ value: I) -> [UInt8] { (0..<I.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> I(8 * $0)) } }
    static func big<I: FixedWidthInteger>(_ value: I) -> [UInt8] { little(value).reversed() }

    private static let vdi = ForeignImage(format: .vdi, size: "3M")
    static let vdiCases: [Damage] = [
        Damage(vdi, "version 1.2", [(0x44, little(UInt32(0x1_0002)))], refusal: "unsupported VDI image (version 1.2)"),
        Damage(vdi, "a differencing image", [(0x4c, little(UInt32(4)))], refusal: "unsupported VDI image (differencing images)"),
        Damage(vdi, "an undo image", [(0x4c, little(UInt32(3)))], refusal: "undo images"),
        Damage(vdi, "no type", [(0x4c, little(UInt32(0)))], refusal: "image type 0"),
        Damage(vdi, "a map at 1", [(0x154, little(UInt32(1)))], refusal: "unaligned block map offset 0x1"),
        Damage(vdi, "a map beyond the end", [(0x154, little(UInt32(0xffff_fe00)))], refusal: "The block map at offset 4294966784"),
        Damage(vdi, "data at 769", [(0x158, little(UInt32(0x301)))], refusal: "unaligned data offset 0x301"),
        Damage(vdi, "sectors of 0 bytes", [(0x168, little(UInt32(0)))], refusal: "sector size 0 is not 512"),
        Damage(vdi, "blocks of 0 bytes", [(0x178, little(UInt32(0)))], refusal: "block size 0 is not 1048576"),
        Damage(vdi, "extra data", [(0x17c, little(UInt32(512)))], refusal: "extra data of 512 bytes"),
        Damage(vdi, "2^64 - 1 bytes", [(0x170, little(UInt64.max))], refusal: "Unsupported VDI image size (size is 0xffffffffffffffff, max supported is 0x1fffff8000000)"),
        Damage(vdi, "more bytes than blocks", [(0x170, little(UInt64(3_145_729)))], refusal: "disk size 3146240, image bitmap has room for 3145728"),
        Damage(vdi, "2^32 - 1 blocks", [(0x180, little(UInt32.max))], refusal: "too many blocks 4294967295, max is 536870784"),
        Damage(vdi, "a map of 2 GiB that is not there", [(0x170, little(UInt64(0x1fff_ff80) << 20)), (0x180, little(UInt32(0x1fff_ff80)))], refusal: "ends beyond the end of the file"),
        Damage(vdi, "a map of 2 GiB that is a hole", [(0x170, little(UInt64(0x1fff_ff80) << 20)), (0x180, little(UInt32(0x1fff_ff80)))], length: 3 << 30),
        Damage(vdi, "a link", [(0x1a8, [1])], refusal: "non-NULL link UUID"),
        Damage(vdi, "a parent", [(0x1b8 + 15, [1])], refusal: "non-NULL parent UUID"),
        Damage(vdi, "cut off in the header", length: 100, refusal: "unsupported VDI image"),
        Damage(vdi, "cut off in the map", length: 512, refusal: "ends beyond the end of the file"),
    ]

    private static let vpc = ForeignImage(format: .vpc, size: "10M")
    private static let fixed = ForeignImage(format: .vpc, options: "subformat=fixed", size: "3M")
    private static let byWindows: (offset: Int, bytes: [UInt8]) = (28, Array("win ".utf8))
    static let vpcCases: [Damage] = [
        Damage(vpc, "a wrong checksum", [(70, [1])], refusal: "Incorrect header checksum"),
        Damage(vpc, "a differencing image", [(60, big(UInt32(4)))], refusal: "Differencing VHD images are not supported"),
        Damage(vpc, "type 99", [(60, big(UInt32(99)))], refusal: "VHD images of type 99"),
        Damage(vpc, "a dynamic header at 2^64 - 1", [(16, big(UInt64.max))], refusal: "The dynamic disk header at offset 18446744073709551615"),
        Damage(vpc, "a dynamic header elsewhere", [(16, big(UInt64(1024)))], refusal: "Invalid header magic"),
        Damage(vpc, "2^64 - 1 bytes", [byWindows, (48, big(UInt64.max))], refusal: "more than 2040 GiB"),
        Damage(vpc, "a geometry of 65534 cylinders", [(56, [0xff, 0xfe, 16, 255])], refusal: "Page table too small"),
        Damage(vpc, "a table at 2^64 - 512", [(512 + 16, big(UInt64.max - 511))], refusal: "The block allocation table at offset"),
        Damage(vpc, "a table at 1", [(512 + 16, big(UInt64(1)))], refusal: "does not begin with a sector"),
        Damage(vpc, "2^32 - 1 entries", [(512 + 28, big(UInt32.max))], refusal: "Max Table Entries too large"),
        Damage(vpc, "no entries", [(512 + 28, big(UInt32(0)))], refusal: "Page table too small"),
        Damage(vpc, "blocks of 0 bytes", [(512 + 32, big(UInt32(0)))], refusal: "Invalid block size 0"),
        Damage(vpc, "blocks of 3 MiB", [(512 + 32, big(UInt32(3 << 20)))], refusal: "Invalid block size 3145728"),
        Damage(vpc, "blocks of 2 GiB", [(512 + 32, big(UInt32(1 << 31)))]),
        Damage(vpc, "a table of 2 GiB that is a hole", [(512 + 28, big(UInt32(0x1fff_ffff)))], length: 3 << 30),
        Damage(
            vpc, "2040 GiB in blocks of 4 KiB, a table that is a hole",
            [byWindows, (48, big(UInt64(0xff00_0000) * 512)), (512 + 16, big(UInt64(1) << 29)), (512 + 28, big(UInt32(0x1fff_ffff))), (512 + 32, big(UInt32(4096)))], length: 3 << 30),
        Damage(vpc, "a block beyond the end", [(1536, big(UInt32(100)))], refusal: "The image has been truncated"),
        Damage(vpc, "a block at the last place that there is", [(1536, big(UInt32.max - 1))], refusal: "The image has been truncated"),
        Damage(vpc, "cut off in the footer", length: 300, refusal: "The dynamic disk header at offset 512 ends beyond the end of the file"),
        Damage(vpc, "cut off in the table", length: 1536, refusal: "ends beyond the end of the file"),
        Damage(fixed, "a fixed image that calls itself dynamic", [(-512 + 60, big(UInt32(3)))], refusal: "The copy of the footer at the start of a dynamic VHD image is missing"),
        Damage(fixed, "a fixed image of 2^62 bytes", [(-512 + 28, byWindows.bytes), (-512 + 48, big(UInt64(1) << 62))], refusal: "more than 2040 GiB"),
        Damage(fixed, "a fixed image larger than its file", [(-512 + 28, byWindows.bytes), (-512 + 48, big(UInt64(1) << 40))]),
        Damage(fixed, "a fixed image without its footer", length: 3_000_000, refusal: "invalid VPC image"),
    ]

    private static let vmdk = ForeignImage(format: .vmdk, size: "10M")
    private static let stream = ForeignImage(format: .vmdk, options: "subformat=streamOptimized", size: "10M")
    static let vmdkCases: [Damage] = [
        Damage(vmdk, "version 4", [(4, little(UInt32(4)))], refusal: "Unsupported VMDK version 4"),
        Damage(vmdk, "2^64 - 1 sectors", [(12, little(UInt64.max))], refusal: "The image claims a size of"),
        Damage(vmdk, "2^53 sectors", [(12, little(UInt64(1) << 53))], refusal: "L1 size too big"),
        Damage(vmdk, "2^38 sectors in a hole", [(12, little(UInt64(1) << 38))], length: 1 << 40),
        Damage(vmdk, "grains of 0 sectors", [(20, little(UInt64(0)))], refusal: "L1 entry size is invalid"),
        Damage(vmdk, "grains of 1 GiB", [(20, little(UInt64(0x20_0000)))]),
        Damage(vmdk, "grains of 2^64 - 1 sectors", [(20, little(UInt64.max))], refusal: "Invalid granularity, image may be corrupt"),
        Damage(stream, "compressed grains of 1 GiB", [(20, little(UInt64(0x20_0000)))], refusal: "Compressed grains of 1073741824 bytes"),
        Damage(vmdk, "tables of 0 grains", [(44, little(UInt32(0)))], refusal: "L1 entry size is invalid"),
        Damage(vmdk, "tables of 2^32 - 1 grains", [(44, little(UInt32.max))], refusal: "L2 table size too big"),
        Damage(vmdk, "no descriptor", [(28, little(UInt64(0)))], refusal: "one extent of an image of several files"),
        Damage(vmdk, "a descriptor at 2^55 sectors", [(28, little(UInt64(1) << 55))], refusal: "The VMDK descriptor at sector"),
        Damage(vmdk, "a descriptor of 2^40 sectors", [(36, little(UInt64(1) << 40))], refusal: "The VMDK descriptor has"),
        Damage(vmdk, "a directory at 2^55 sectors", [(56, little(UInt64(1) << 55))], refusal: "The grain directory at sector"),
        Damage(vmdk, "a directory beyond the end", [(56, little(UInt64(1) << 20))], refusal: "The grain directory at sector"),
        Damage(vmdk, "a directory in a footer that is not there", [(56, little(UInt64.max))], refusal: "Image not in VMDK format"),
        Damage(stream, "an unknown compression", [(77, little(UInt16(2)))], refusal: "VMDK compression method 2"),
        Damage(stream, "no markers", [(8, little(UInt32(0x1_0003)))], refusal: "without markers"),
        Damage(vmdk, "data cut off", length: 3000, refusal: "ends beyond the end of the file"),
    ]

    private static let vhdx = ForeignImage(format: .vhdx, size: "20M")
    /// The two copies of a structure get the same number.
    private static func both(_ places: [Int], _ offset: Int, _ bytes: [UInt8]) -> [(offset: Int, bytes: [UInt8])] { places.map { ($0 + offset, bytes) } }
    private static let headers = [0x10000, 0x20000]
    private static let regions = [0x30000, 0x40000]
    private static let metadata = 0x300000
    /// Where QEMU puts the items of the metadata.
    private static let items = 0x310000
    static let vhdxCases: [Damage] = [
        Damage(vhdx, "wrong checksums in both headers", both(headers, 100, [1]), refusal: "No valid VHDX header found"),
        Damage(vhdx, "a wrong checksum in one header", [(0x10000 + 100, [1])]),
        Damage(vhdx, "wrong checksums in both region tables", both(regions, 5000, [1]), refusal: "No valid VHDX region table found"),
        Damage(vhdx, "a wrong checksum in one region table", [(0x30000 + 5000, [1])]),
        Damage(vhdx, "version 2", both(headers, 66, [2]), refusal: "VHDX images of version 2"),
        Damage(vhdx, "a log to replay", both(headers, 48, [1]), refusal: "The log of the VHDX image is not empty"),
        Damage(vhdx, "a log over the block table", both(headers, 72, little(UInt64(2 << 20))), refusal: "overlaps another one or the log"),
        Damage(vhdx, "a log at 2^64 - 1 MiB", both(headers, 72, little(UInt64.max << 20)), refusal: "The VHDX image's log has offset"),
        Damage(vhdx, "2^32 - 1 regions", both(regions, 8, little(UInt32.max)), refusal: "The VHDX region table has 4294967295 entries"),
        Damage(vhdx, "no regions", both(regions, 8, little(UInt32(0))), refusal: "lacks the block allocation table or the metadata"),
        Damage(vhdx, "2047 regions that are zeroes", both(regions, 8, little(UInt32(2047))), refusal: "region 2 has offset 0"),
        Damage(vhdx, "an unknown region that is needed", both(regions, 16, [9]) + both(regions, 16 + 28, [1]), refusal: "a region of a kind that is not supported"),
        Damage(vhdx, "regions in the same place", both(regions, 16 + 16, little(UInt64(3 << 20))), refusal: "Region 1 of the VHDX image overlaps"),
        Damage(vhdx, "a block table at 2^63", both(regions, 16 + 16, little(UInt64(1) << 63)), refusal: "region 0 has offset"),
        Damage(vhdx, "a block table beyond the end", both(regions, 16 + 16, little(UInt64(1) << 40)), refusal: "block allocation table has no room"),
        Damage(vhdx, "metadata beyond the end", both(regions, 48 + 16, little(UInt64(1) << 40)), refusal: "metadata table has no signature"),
        Damage(vhdx, "65535 items", [(metadata + 10, little(UInt16.max))], refusal: "The VHDX metadata table has 65535 entries"),
        Damage(vhdx, "no items", [(metadata + 10, little(UInt16(0)))], refusal: "The VHDX metadata lack the file parameters"),
        Damage(vhdx, "an unknown item that is needed", [(metadata + 32, [9])], refusal: "metadata of a kind that is not supported"),
        Damage(vhdx, "an item inside the table", [(metadata + 32 + 16, little(UInt32(100)))], refusal: "Item 0 of the VHDX metadata"),
        Damage(vhdx, "an item of 4 GiB", [(metadata + 32 + 20, little(UInt32.max))], refusal: "Item 0 of the VHDX metadata"),
        Damage(vhdx, "items in the same place", [(metadata + 64 + 16, little(UInt32(65536)))], refusal: "Items of the VHDX metadata overlap"),
        Damage(vhdx, "file parameters of 4 bytes", [(metadata + 32 + 20, little(UInt32(4)))], refusal: "The file parameters in the VHDX metadata has 4 bytes"),
        Damage(vhdx, "a differencing image", [(items + 4, little(UInt32(2)))], refusal: "Differencing VHDX images are not supported"),
        Damage(vhdx, "blocks of 0 bytes", [(items, little(UInt32(0)))], refusal: "blocks of 0 bytes"),
        Damage(vhdx, "blocks of 3 MiB", [(items, little(UInt32(3 << 20)))], refusal: "blocks of 3145728 bytes"),
        Damage(vhdx, "2^64 - 1 bytes", [(items + 8, little(UInt64.max))], refusal: "claims a size of 18446744073709551615 bytes"),
        Damage(vhdx, "64 TiB, more than the table has room for", [(items + 8, little(UInt64(64) << 40)), (items, little(UInt32(1 << 20)))], refusal: "block allocation table has no room"),
        Damage(vhdx, "sectors of 0 bytes", [(items + 32, little(UInt32(0)))], refusal: "sectors of 0 bytes"),
        Damage(vhdx, "cut off in the headers", length: 70_000, refusal: "No valid VHDX region table found"),
    ]

    /// Of the headers and the region tables.
    private static func correctVHDXChecksums(_ bytes: inout [UInt8]) {
        for (places, size) in [(headers, 4096), (regions, 65536)] {
            for place in places where place + size <= bytes.count {
                let sum = CRC32C.checksum(of: bytes.span.bytes.extracting(place..<place + size), blank: 4..<8)
                bytes.replaceSubrange(place + 4..<place + 8, with: little(sum))
            }
        }
    }

    @Test("a block of a VHDX image that is not there, or there in part, is an error", arguments: [4, 5, 7, 6, 0xffff_ffff_fff0_0006, 0x7fff_ffff_fff0_0006, 0x0fff_0000_0006] as [UInt64])
    func vhdxBlock(entry: UInt64) async throws {
        let folder = try TemporaryFolder()
        try Damage(Self.vhdx, "an entry", [(0x200000, Self.little(entry))]).make(in: folder)
        try await ForeignImage.withBackend(.vhdx, folder.path(ForeignImage.name)) { backend in
            let failure = await #expect(throws: BlockError.self) { try await backend.readBytes(at: 4096, 512) }
            #expect(failure?.code == .corruptImage)
            let second = try await backend.readBytes(at: 8 << 20, 512)
            #expect(second == [UInt8](repeating: 0, count: 512))
        }
        let check = try run(Strata.binary, ["img", "check", ForeignImage.name], in: folder.url)
        #expect(check.ending == .exited(2) && check.errorText.contains("ERROR: "), "\(check)")
    }

    @Test("the checksum of VHDX is the published one")
    func checksum() {
        // RFC 3720, appendix B.4.
        #expect(CRC32C.checksum(of: [UInt8](repeating: 0, count: 32).span.bytes, blank: 0..<0) == 0x8a91_36aa)
        #expect(CRC32C.checksum(of: [UInt8](repeating: 0xff, count: 32).span.bytes, blank: 0..<0) == 0x62a8_ab43)
        #expect(CRC32C.checksum(of: [UInt8](0..<32).span.bytes, blank: 0..<0) == 0x46dd_794e)
    }

    @Test("telling what is in one costs little, and ends with the answer or the sentence", arguments: vdiCases + vpcCases + vmdkCases + vhdxCases)
    func info(damage: Damage) throws {
        let folder = try TemporaryFolder()
        try damage.make(in: folder)
        let meter = """
            import resource, subprocess, sys
            run = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, capture_output=True, text=True)
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            print(run.returncode, int(1000 * (used.ru_utime + used.ru_stime)), used.ru_maxrss, run.stderr.replace("\\n", "\\\\n"))
            """
        let finished = try mustRun(
            "python3", ["-c", meter, Strata.binary, "img", "info", "-f", damage.image.format.rawValue, ForeignImage.name], in: folder.url)
        let words = finished.text.split(separator: " ", maxSplits: 3, omittingEmptySubsequences: false)
        try #require(words.count == 4)
        #expect(Int(words[0]) == (damage.refusal == nil ? 0 : 1), "\(finished.text)")
        if let refusal = damage.refusal { #expect(words[3].contains(refusal), "\(finished.text)") }
        // A debug build takes several times as long as what users run.
        #if DEBUG
        let limit = 800
        #else
        let limit = 200
        #endif
        #expect(Int(words[1]) ?? .max < limit, "\(words[1]) ms")
        #expect(Int(words[2]) ?? .max < 64 << 10, "\(words[2]) KiB")
    }

    @Test("descriptors of images in several files are refused by the name of their subformat", arguments: ["monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"])
    func descriptors(subformat: String) throws {
        let folder = try TemporaryFolder()
        try QEMU.img("create", "-q", "-f", "vmdk", "-o", "subformat=\(subformat)", "a.vmdk", "4M", in: folder)
        for format in [[], ["-f", "vmdk"]] {
            let finished = try run(Strata.binary, ["img", "info"] + format + ["a.vmdk"], in: folder.url)
            #expect(finished.ending == .exited(1) && finished.errorText.contains("VMDK images of the subformat '\(subformat)' are not supported"), "\(finished)")
        }
    }

    @Test("an image with a parent is refused")
    func parent() throws {
        let folder = try TemporaryFolder()
        try QEMU.img("create", "-q", "-f", "vmdk", "base.vmdk", "4M", in: folder)
        try QEMU.img("create", "-q", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "a.vmdk", in: folder)
        let finished = try run(Strata.binary, ["img", "info", "a.vmdk"], in: folder.url)
        #expect(finished.ending == .exited(1) && finished.errorText.contains("hold the differences from a parent image"), "\(finished)")
    }

    @Test("a block that is not there is an error for whoever reads it, and not zeroes")
    func missingBlock() async throws {
        let folder = try TemporaryFolder()
        // The first block lies beyond the end, the second is not allocated.
        let damage = Damage(Self.vdi, "a block beyond the end", [(512, Self.little(UInt32(0xffff_fff0)))])
        try damage.make(in: folder)
        try await ForeignImage.withBackend(.vdi, folder.path(ForeignImage.name)) { backend in
            let failure = await #expect(throws: BlockError.self) { try await backend.readBytes(at: 4096, 512) }
            #expect(failure?.code == .corruptImage && failure?.message.contains("beyond the end") == true)
            let second = try await backend.readBytes(at: 1 << 20, 512)
            #expect(second == [UInt8](repeating: 0, count: 512))
        }
    }

    @Test("check of a damaged VDI image finds what qemu-img finds", arguments: [
        [2, 1, 1], [0, 0, 0], [7, 0, 1], [0xffff_fffd, 2, 0xffff_fffe], [0, 1, 2],
    ] as [[UInt32]])
    func vdiCheck(map: [UInt32]) throws {
        let folder = try TemporaryFolder()
        try Damage(Self.vdi, "a map", [(512, map.flatMap { Self.little($0) }), (0x184, Self.little(UInt32(3)))]).make(in: folder)
        for output in ["human", "json"] {
            let ours = try run(Strata.binary, ["img", "check", "--output=\(output)", "-f", "vdi", ForeignImage.name], in: folder.url)
            let theirs = try run("qemu-img", ["check", "--output=\(output)", "-f", "vdi", ForeignImage.name], in: folder.url)
            #expect(ours.text == theirs.text && ours.errorText == theirs.errorText && ours.ending == theirs.ending, "\(ours) \(theirs)")
        }
    }

    // MARK: Compressed grains

    /// A stream-optimized image of one grain table, by our own hand.
    private static func stream(_ grains: [[UInt8]], directoryInFooter: Bool, createType: String = "streamOptimized") -> [UInt8] {
        func sectors(_ bytes: [UInt8]) -> [UInt8] { bytes + [UInt8](repeating: 0, count: (512 - bytes.count % 512) % 512) }
        func header(directory: UInt64) -> [UInt8] {
            var bytes = Array("KDMV".utf8)
            bytes += little(UInt32(3)) + little(UInt32(0x3_0001)) + little(UInt64(128 * grains.count)) + little(UInt64(128)) + little(UInt64(1)) + little(UInt64(1))
            bytes += little(UInt32(512)) + little(UInt64(0)) + little(directory) + little(UInt64(8)) + [0, 10, 32, 13, 10, 1, 0]
            return sectors(bytes)
        }
        let text = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"\(createType)\"\n"
        var file = [UInt8](repeating: 0, count: 512) + sectors(Array(text.utf8)) + [UInt8](repeating: 0, count: 6 * 512)
        var table: [UInt32] = []
        for grain in grains {
            table.append(grain.isEmpty ? 0 : UInt32(file.count / 512))
            file += sectors(grain)
        }
        let tableSector = UInt32(file.count / 512)
        file += (table + [UInt32](repeating: 0, count: 512 - table.count)).flatMap { little($0) }
        let directory = UInt64(file.count / 512)
        file += sectors(little(tableSector))
        if directoryInFooter {
            file += sectors(little(UInt64(1)) + little(UInt32(0)) + little(UInt32(3))) + header(directory: directory) + [UInt8](repeating: 0, count: 512)
        }
        file.replaceSubrange(0..<512, with: header(directory: directoryInFooter ? .max : directory))
        return file
    }

    /// A marker and a stream, which zlib makes.
    private static func grain(_ contents: [UInt8], number: Int, in folder: TemporaryFolder, claiming size: UInt32? = nil) throws -> [UInt8] {
        try folder.write(contents, to: "grain")
        _ = try mustRun("python3", ["-c", "import zlib; open('stream', 'wb').write(zlib.compress(open('grain', 'rb').read()))"], in: folder.url)
        let stream = try folder.read("stream")
        return little(UInt64(128 * number)) + little(size ?? UInt32(stream.count)) + stream
    }

    @Test("a stream is read with its directory in front or in a footer, also where its last grain is short", arguments: [false, true])
    func streams(directoryInFooter: Bool) async throws {
        let folder = try TemporaryFolder()
        var generator = SeededGenerator(seed: runSeed)
        let contents = (0..<3).map { _ in randomBytes(65536, using: &generator) }
        let image = Self.stream(
            [try Self.grain(contents[0], number: 0, in: folder), [], try Self.grain(Array(contents[2].prefix(1024)), number: 2, in: folder)],
            directoryInFooter: directoryInFooter)
        try folder.write(image, to: "a.vmdk")
        try await ForeignImage.withBackend(.vmdk, folder.path("a.vmdk")) { backend in
            #expect(backend.length == 3 * 65536)
            let first = try await backend.readBytes(at: 0, 131072)
            #expect(first == contents[0] + [UInt8](repeating: 0, count: 65536))
            let last = try await backend.readBytes(at: 131072 + 100, 924)
            #expect(last == Array(contents[2][100..<1024]))
            let failure = await #expect(throws: BlockError.self) { try await backend.readBytes(at: 131072 + 1000, 100) }
            #expect(failure?.description.contains("holds 1024 bytes") == true)
        }
    }

    @Test("a sparse file whose descriptor speaks of another subformat is refused by its name")
    func otherSubformat() throws {
        let folder = try TemporaryFolder()
        try folder.write(Self.stream([], directoryInFooter: false, createType: "vmfsSparse"), to: "a.vmdk")
        let finished = try run(Strata.binary, ["img", "info", "a.vmdk"], in: folder.url)
        #expect(finished.ending == .exited(1) && finished.errorText.contains("VMDK images of the subformat 'vmfsSparse' are not supported"), "\(finished)")
    }

    @Test("compressed grains that lie are errors: about their length, with too much inside, cut short, with a wrong checksum")
    func lyingGrains() async throws {
        let folder = try TemporaryFolder()
        var generator = SeededGenerator(seed: runSeed)
        let contents = randomBytes(65536, using: &generator)
        var damaged = try Self.grain(contents, number: 6, in: folder)
        damaged[damaged.count - 1] ^= 1
        let grains = [
            try Self.grain(contents, number: 0, in: folder), try Self.grain(contents, number: 1, in: folder, claiming: 0),
            try Self.grain(contents, number: 2, in: folder, claiming: .max), try Self.grain(contents, number: 3, in: folder, claiming: 1000),
            try Self.grain(contents + contents, number: 4, in: folder), try Self.grain([UInt8](repeating: 0, count: 8 << 20), number: 5, in: folder), damaged,
            Self.little(UInt64(7 * 128)) + Self.little(UInt32(131072)),
        ]
        try folder.write(Self.stream(grains, directoryInFooter: false), to: "a.vmdk")
        try await ForeignImage.withBackend(.vmdk, folder.path("a.vmdk")) { backend in
            let whole = try await backend.readBytes(at: 0, 65536)
            #expect(whole == contents)
            for grain in 1..<grains.count {
                let failure = await #expect(throws: BlockError.self, "grain \(grain)") { try await backend.readBytes(at: grain * 65536 + 512, 512) }
                #expect(failure?.code == .corruptImage, "grain \(grain): \(failure.map(\.description) ?? "")")
            }
        }
    }

    // MARK: Random damage

    @Test("random damage to headers and tables is answered with data or an error", arguments: ForeignImage.small.filter { $0.size != "1000" && $0.size != "70M" })
    func randomDamage(image: ForeignImage) async throws {
        let folder = try TemporaryFolder()
        try image.make(in: folder)
        let sound = try folder.read(ForeignImage.name)
        var generator = SeededGenerator(seed: runSeed &* 31 &+ 7)
        for round in 0..<(extendedRun ? 400 : 40) {
            var bytes = sound
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                // Where numbers are: the first pages of the file, and its footer.
                let areas = image.format == .vhdx ? [0x10000, 0x20000, 0x30000, 0x40000, 0x200000, 0x300000, 0x310000] : [0, 0, 0, 0, 512, bytes.count - 512]
                let area = areas.randomElement(using: &generator) ?? 0
                let place = min(bytes.count - 8, area + Int.random(in: 0..<(area == 0 ? 4096 : 200), using: &generator))
                let value = [0, 1, .max, 1 << 63, 1 << 32, UInt64.random(in: 0...UInt64.max, using: &generator)].randomElement(using: &generator) ?? 0
                let count = [1, 2, 4, 8].randomElement(using: &generator) ?? 1
                bytes.replaceSubrange(place..<place + count, with: Self.little(value).prefix(count))
            }
            if Int.random(in: 0..<4, using: &generator) == 0 { bytes.removeLast(Int.random(in: 1..<bytes.count, using: &generator)) }
            if image.format == .vhdx, round.isMultiple(of: 2) { Self.correctVHDXChecksums(&bytes) }
            if image.format == .vpc, bytes.count >= 512, round.isMultiple(of: 2) { Self.correctChecksum(&bytes) }
            try folder.write(bytes, to: ForeignImage.name)
            let places = (0..<20).map { _ in Double.random(in: 0..<1, using: &generator) }
            do {
                try await ForeignImage.withBackend(image.format, folder.path(ForeignImage.name)) { backend in
                    for place in places {
                        let start = Int(Double(backend.length) * place)
                        let count = min(backend.length - start, 300_000)
                        if count <= 0 { continue }
                        do { _ = try await backend.readBytes(at: start, count) } catch let error as BlockError {
                            #expect(!error.description.contains("\n"))
                        }
                        do throws(BlockError) { _ = try await backend.blockStatus(of: GuestRange(GuestOffset(start), byteCount: count), precise: true) } catch {}
                    }
                }
            } catch let error as BlockError {
                #expect(!error.description.isEmpty && !error.description.contains("\n"))
            }
        }
    }

    /// Of a VHD footer.
    private static func correctChecksum(_ bytes: inout [UInt8]) {
        let start = bytes.starts(with: "conectix".utf8) ? 0 : bytes.count - 512
        bytes.replaceSubrange(start + 64..<start + 68, with: [0, 0, 0, 0])
        let sum = ~bytes[start..<start + 512].reduce(UInt32(0)) { $0 + UInt32($1) }
        bytes.replaceSubrange(start + 64..<start + 68, with: big(sum))
    }
}
