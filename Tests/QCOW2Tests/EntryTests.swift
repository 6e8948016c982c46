import QCOW2Testing
import StrataBase
import StrataTesting
import Testing

@testable import QCOW2

@Suite("qcow2 table entries")
struct EntryTests {
    let geometry = ClusterGeometry(clusterBits: 16, refcountOrder: 4)

    @Test("a standard entry means what the specification says")
    func standardEntries() {
        func meaning(_ bits: UInt64, version: UInt32 = 3) -> L2Entry.Meaning { L2Entry(bits: bits).meaning(in: geometry, version: version) }
        #expect(meaning(0) == .unallocated)
        #expect(meaning(1) == .zero(nil))
        #expect(meaning(1, version: 2) == .invalid(.zeroFlagTooOld))
        #expect(meaning(0x8000_0000_0005_0000) == .normal(HostOffset(0x50000)))
        #expect(meaning(0x0000_0000_0005_0000) == .normal(HostOffset(0x50000)))
        #expect(meaning(0x8000_0000_0005_0001) == .zero(HostOffset(0x50000)))
        #expect(meaning(0x8000_0000_0005_0200) == .invalid(.unalignedOffset))
        #expect(L2Entry(bits: 0x0100_0000_0005_0000).hasReservedBits)
        #expect(L2Entry.normal(HostOffset(0x50000)).isCopied)
    }

    @Test("a compressed entry splits at the bit that the cluster size sets", arguments: 9...21)
    func compressedEntries(clusterBits: Int) {
        let geometry = ClusterGeometry(clusterBits: clusterBits, refcountOrder: 4)
        var random = SeededGenerator(seed: UInt64(clusterBits))
        for _ in 0..<200 {
            let sectors = Int.random(in: 1...(1 << (clusterBits - 8)), using: &random)
            let offset = Int.random(in: 0..<(1 << min(56, geometry.compressedOffsetBits)), using: &random)
            let data = CompressedCluster(offset: HostOffset(offset), byteCount: sectors * 512 - offset % 512)
            let entry = data.entry(in: geometry)
            #expect(entry.isCompressed && !entry.isCopied)
            #expect(entry.meaning(in: geometry, version: 2) == .compressed(data))
        }
    }

    @Test("the subclusters of an extended entry mean what the specification says, whatever the bits are")
    func extendedEntries() {
        let geometry = ClusterGeometry(clusterBits: 16, refcountOrder: 4, hasSubclusters: true)
        #expect(geometry.l2Entries == 4096 && geometry.subclusterSize == 2048)
        func meaning(_ bits: UInt64, _ allocated: UInt32, _ zero: UInt32) -> L2Entry.Meaning {
            L2Entry(bits: bits, subclusters: SubclusterBitmap(allocated: allocated, zero: zero)).meaning(in: geometry, version: 3)
        }
        let host: UInt64 = 0x8000_0000_0005_0000
        #expect(meaning(0, 0, 0) == .unallocated)
        #expect(meaning(0, 0, .max) == .zero(nil))
        #expect(meaning(0, 0, 1) == .mixed(nil))
        #expect(meaning(0, 1, 0) == .invalid(.subclusters))
        #expect(meaning(host, .max, 0) == .normal(HostOffset(0x50000)))
        #expect(meaning(host, 0, .max) == .zero(HostOffset(0x50000)))
        #expect(meaning(host, 0, 0) == .mixed(HostOffset(0x50000)))
        #expect(meaning(host, 3, 2) == .invalid(.subclusters))
        var random = SeededGenerator(seed: 3)
        for _ in 0..<5000 {
            // Runs rather than noise.
            let a = UInt32(truncatingIfNeeded: UInt64.max << UInt64.random(in: 0...32, using: &random)), z = ~a & UInt32(truncatingIfNeeded: random.next())
            let entry = L2Entry(bits: Bool.random(using: &random) ? host : 0, subclusters: SubclusterBitmap(allocated: a, zero: z))
            let kinds = (0..<32).map { entry.kind(ofSubcluster: $0, in: geometry) }
            for index in 0..<32 {
                let expected: GuestExtent.Kind =
                    z >> UInt32(index) & 1 == 1 ? (entry.bits == 0 ? .zero : .zeroAllocated)
                    : a >> UInt32(index) & 1 == 1 ? .normal : entry.bits == 0 ? .unallocated : .reserved
                #expect(kinds[index] == expected)
                #expect(entry.run(fromSubcluster: index, in: geometry) == kinds[index...].prefix { $0 == kinds[index] }.count)
            }
        }
        for first in 0..<32 {
            for count in 0...(32 - first) {
                let mask = SubclusterBitmap.mask(first, count: count)
                #expect((0..<32).allSatisfy { (mask >> UInt32($0) & 1 == 1) == (first..<(first + count)).contains($0) })
            }
        }
    }

    @Test("in a data file offset zero is a place")
    func externalZero() {
        let geometry = ClusterGeometry(clusterBits: 16, refcountOrder: 4, hasExternalData: true)
        #expect(L2Entry(bits: 1 << 63).meaning(in: geometry, version: 3) == .normal(HostOffset(0)))
        #expect(L2Entry(bits: 1 << 63 | 1).meaning(in: geometry, version: 3) == .zero(HostOffset(0)))
        #expect(L2Entry(bits: 0).meaning(in: geometry, version: 3) == .unallocated)
        #expect(L2Entry(bits: 1 << 63).meaning(in: self.geometry, version: 3) == .unallocated)
    }

    @Test("every 64-bit pattern decodes to something", arguments: 9...21)
    func anyBits(clusterBits: Int) {
        let geometry = ClusterGeometry(clusterBits: clusterBits, refcountOrder: 4)
        var random = SeededGenerator(seed: UInt64(clusterBits))
        for _ in 0..<20_000 {
            let entry = L2Entry(bits: random.next())
            switch entry.meaning(in: geometry, version: 3) {
            case .compressed(let data): #expect(data.byteCount > 0 && data.hostClusters(in: geometry).byteCount > 0)
            case .normal(let host): #expect(host.rawValue > 0 && host.isAligned(to: geometry.clusterSize))
            case .zero(let host): #expect(host.map { $0.isAligned(to: geometry.clusterSize) } ?? true)
            case .unallocated, .invalid: break
            case .mixed: Issue.record("no subclusters here")
            }
            #expect(L1Entry(bits: entry.bits).tableOffset >= 0)
        }
    }

    @Test("a refcount block of any width holds what is put into it and nothing else", arguments: 0...6)
    func refcountWidths(order: Int) {
        let geometry = ClusterGeometry(clusterBits: 9, refcountOrder: order)
        var block = RefcountBlock(emptyFor: geometry)
        #expect(block.count == geometry.refcountsPerBlock)
        var model = [UInt64](repeating: 0, count: block.count)
        var random = SeededGenerator(seed: UInt64(order))
        for _ in 0..<2000 {
            let index = Int.random(in: 0..<block.count, using: &random)
            let value = random.next() & (UInt64.max >> UInt64(64 - (1 << order)))
            block[index] = value
            model[index] = value
        }
        #expect((0..<block.count).allSatisfy { block[$0] == model[$0] })
        #expect(RefcountBlock(bytes: block.bytes, order: order) == block)
    }

    @Test("refcounts narrower than a byte fill it from its least significant bit")
    func packing() {
        var bits = RefcountBlock(emptyFor: ClusterGeometry(clusterBits: 9, refcountOrder: 0))
        bits[0] = 1
        bits[9] = 1
        #expect(Array(bits.bytes[0..<2]) == [0b0000_0001, 0b0000_0010])
        var nibbles = RefcountBlock(emptyFor: ClusterGeometry(clusterBits: 9, refcountOrder: 2))
        nibbles[0] = 0x5
        nibbles[1] = 0xa
        #expect(nibbles.bytes[0] == 0xa5)
        var words = RefcountBlock(emptyFor: ClusterGeometry(clusterBits: 9, refcountOrder: 4))
        words[1] = 0x1234
        #expect(Array(words.bytes[2..<4]) == [0x12, 0x34])
    }
}
