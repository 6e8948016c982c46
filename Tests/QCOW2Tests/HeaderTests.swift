import QCOW2Testing
import StrataBase
import StrataTesting
import Testing

@testable import QCOW2

@Suite("qcow2 header")
struct HeaderTests {
    /// A version 3 header cluster whose values are right; tests break one thing in it.
    static func healthy(version: UInt32 = 3, clusterBits: UInt32 = 16) -> QCOW2Header {
        var header = QCOW2Header(version: version, clusterBits: clusterBits, virtualSize: 1 << 30, refcountOrder: 4)
        let clusterSize: UInt64 = 1 << UInt64(clusterBits)
        header.refcountTableOffset = clusterSize
        header.refcountTableClusters = 1
        header.l1TableOffset = 3 * clusterSize
        header.l1Size = UInt32(ClusterGeometry(clusterBits: Int(clusterBits), refcountOrder: 4).l1Entries(forVirtualSize: 1 << 30))
        return header
    }

    static func cluster(_ header: QCOW2Header, _ extensions: [UInt8] = []) -> [UInt8] {
        var bytes = header.encoded() + extensions
        bytes += [UInt8](repeating: 0, count: max(0, (1 << Int(min(header.clusterBits, 21))) - bytes.count))
        return bytes
    }

    static func validate(_ bytes: [UInt8]) throws(BlockError) -> ValidatedHeader { try ValidatedHeader(decoding: bytes.span.bytes) }

    static func message(_ bytes: [UInt8]) -> String? {
        do {
            _ = try validate(bytes)
            return nil
        } catch { return error.message }
    }

    @Test("what is encoded decodes to the same header", arguments: [2, 3] as [UInt32], [9, 12, 16, 21] as [UInt32])
    func roundTrip(version: UInt32, clusterBits: UInt32) throws {
        let header = Self.healthy(version: version, clusterBits: clusterBits)
        let read = try Self.validate(Self.cluster(header))
        #expect(read.header == header)
        #expect(read.virtualSize == 1 << 30)
        #expect(read.geometry.clusterSize == 1 << Int(clusterBits))
    }

    @Test("each broken field gets one sentence that names it")
    func brokenFields() {
        func broken(_ change: (inout QCOW2Header) -> Void) -> String? {
            var header = Self.healthy()
            change(&header)
            return Self.message(Self.cluster(header))
        }
        #expect(broken { $0.version = 4 } == "Unsupported qcow2 version 4")
        #expect(broken { $0.clusterBits = 8 } == "Unsupported cluster size: 2^8")
        #expect(broken { $0.clusterBits = 22 } == "Unsupported cluster size: 2^22")
        #expect(broken { $0.clusterBits = .max } == "Unsupported cluster size: 2^4294967295")
        #expect(broken { $0.refcountOrder = 7 } == "Reference count entry width too large; may not exceed 64 bits")
        #expect(broken { $0.l1Size = 4 << 20 | 1 } == "Active L1 table too large")
        #expect(broken { $0.l1Size = 1 } == "L1 table is too small")
        #expect(broken { $0.refcountTableClusters = 0 } == "Image does not contain a reference count table")
        #expect(broken { $0.refcountTableClusters = 129 }?.hasPrefix("Image is too large") == true)
        #expect(broken { $0.backingNameOffset = 65537 } == "Invalid backing file offset")
        #expect(broken { ($0.backingNameOffset, $0.backingNameSize) = (1024, 1024) } == "Backing file name too long")
        #expect(broken { $0.snapshotCount = 65537 } == "Snapshot table too large")
        #expect(broken { $0.compressionType = 1 } == "qcow2: compression type incompatible feature bit must be set")
        #expect(broken { $0.incompatible = .compressionType } == "qcow2: compression type incompatible feature bit must not be set")
        #expect(broken { ($0.incompatible, $0.compressionType) = (.compressionType, 2) } == "qcow2: unknown compression type: 2")
        #expect(broken { $0.encryptionMethod = 3 } == "Unsupported encryption method 3")
        #expect(broken { $0.virtualSize = .max }?.hasPrefix("Image is too big") == true)
        for offset in [0, 1, 65536 + 512, UInt64(Int64.max), UInt64(Int64.max) - 65535, .max, 1 << 63] {
            #expect(broken { $0.l1TableOffset = offset }?.hasPrefix("Active L1 table offset invalid") == true, "\(offset)")
            #expect(broken { $0.refcountTableOffset = offset }?.hasPrefix("Reference count table offset invalid") == true, "\(offset)")
            #expect(broken { ($0.snapshotCount, $0.snapshotTableOffset) = (1, offset) }?.hasPrefix("Snapshot table offset") == true)
        }
    }

    @Test("where the start of a cluster is said to be enough, the rest changes nothing", arguments: 0..<400 as Range<UInt64>)
    func startIsEnough(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var header = Self.healthy(version: seed % 5 == 0 ? 2 : 3, clusterBits: [9, 12, 13, 16].randomElement(using: &random)!)
        let clusterSize = 1 << Int(header.clusterBits)
        var area = HeaderExtensions()
        if Bool.random(using: &random) { area.backingFormat = "qcow2" }
        for _ in 0..<Int.random(in: 0...3, using: &random) {
            area.unknown.append(.init(type: 77, data: [UInt8](repeating: 5, count: [0, 3, 300, 900, 4000, 5000].randomElement(using: &random)!)))
        }
        var extensions = area.encoded()
        if Bool.random(using: &random) {
            header.backingNameOffset = UInt64(Int.random(in: Int(header.headerLength) + extensions.count...max(6000, Int(header.headerLength) + extensions.count), using: &random))
            header.backingNameSize = UInt32.random(in: 0...1030, using: &random)
        }
        // Some are damaged: no end mark, or a length that leads anywhere.
        if seed % 3 == 0 { extensions.removeLast(min(8, extensions.count)) }
        if seed % 7 == 0, extensions.count >= 8 { extensions[Int.random(in: 4...7, using: &random)] ^= UInt8.random(in: 1...255, using: &random) }
        var cluster = Array((header.encoded() + extensions).prefix(clusterSize))
        while cluster.count < clusterSize { cluster.append(UInt8.random(in: 0...255, using: &random)) }
        func outcome(_ bytes: [UInt8]) -> Result<ValidatedHeader, BlockError> {
            do throws(BlockError) { return .success(try Self.validate(bytes)) } catch { return .failure(error) }
        }
        let start = Array(cluster.prefix(4096))
        guard let wanted = ValidatedHeader.byteCount(needing: start.span.bytes) else {
            let (short, long) = (outcome(start), outcome(cluster))
            #expect((try? short.get()) == (try? long.get()))
            if case .failure(let one) = short, case .failure(let other) = long { #expect(one.message == other.message) }
            return
        }
        #expect(wanted == clusterSize && clusterSize > 4096)
    }

    @Test("an unknown incompatible feature is refused by the name that the image gives it")
    func unknownFeature() {
        var header = Self.healthy()
        header.incompatible = IncompatibleFeatures(rawValue: 1 << 40 | 1 << 41)
        var extensions = HeaderExtensions()
        extensions.featureNames = [FeatureName(.incompatible, bit: 40, name: "holographic storage")]
        let expected = "Unsupported qcow2 feature(s): holographic storage, Unknown incompatible feature: 20000000000"
        #expect(Self.message(Self.cluster(header, extensions.encoded())) == expected)
        // In the order of the image's table; all without a name are one number, as in qemu-img's message.
        header.incompatible = IncompatibleFeatures(rawValue: 1 << 20 | 1 << 40 | 1 << 63 | 1 << 41)
        extensions.featureNames = [FeatureName(.incompatible, bit: 63, name: "time travel"), FeatureName(.compatible, bit: 20, name: "another kind")] + extensions.featureNames
        #expect(
            Self.message(Self.cluster(header, extensions.encoded()))
                == "Unsupported qcow2 feature(s): time travel, holographic storage, Unknown incompatible feature: 20000100000")
    }

    @Test("extensions survive the round trip, unknown ones with their data")
    func extensions() throws {
        var extensions = HeaderExtensions()
        extensions.backingFormat = "raw"
        extensions.featureNames = FeatureName.standardTable
        extensions.unknown = [.init(type: 0x1234_5678, data: [1, 2, 3])]
        var header = Self.healthy()
        let area = extensions.encoded()
        header.backingNameOffset = UInt64(QCOW2Header.fullSize + area.count)
        header.backingNameSize = 8
        let read = try Self.validate(Self.cluster(header, area + Array("base.img".utf8)))
        #expect(read.extensions == extensions)
        #expect(read.backingName == "base.img")
    }

    @Test("a header length says where extensions start and how many fields there are")
    func headerLengths() {
        func with(length: UInt32) -> String? {
            var bytes = Self.cluster(Self.healthy())
            bytes.setBigEndian(length, at: 100)
            return Self.message(bytes)
        }
        #expect(with(length: 72) == "qcow2 header too short")
        #expect(with(length: 103) == "qcow2 header too short")
        #expect(with(length: 104) == nil)
        #expect(with(length: 112) == nil)
        #expect(with(length: 65536) == nil)
        #expect(with(length: 65537) == "qcow2 header exceeds cluster size")
        #expect(with(length: .max) == "qcow2 header exceeds cluster size")
    }

    @Test("random bytes after the magic are refused or accepted, but never trap", arguments: 0..<8 as Range<UInt64>)
    func fuzzedHeaders(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var extensions = HeaderExtensions()
        extensions.backingFormat = "qcow2"
        extensions.featureNames = FeatureName.standardTable
        extensions.unknown = [.init(type: 7, data: [9])]
        let template = Self.cluster(Self.healthy(clusterBits: 9), extensions.encoded())
        for _ in 0..<1500 {
            var bytes = template
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                let position = Int.random(in: 4..<bytes.count, using: &random)
                bytes[position] = [0, 0xff, 0x7f, 0x80, UInt8.random(in: 0...255, using: &random)].randomElement(using: &random) ?? 0
            }
            if Int.random(in: 0..<4, using: &random) == 0 { bytes.removeLast(Int.random(in: 0..<bytes.count, using: &random)) }
            if let read = try? Self.validate(bytes) {
                #expect(read.virtualSize >= 0 && read.geometry.l1Entries(forVirtualSize: read.virtualSize) <= Int(read.header.l1Size))
            }
        }
    }
}
