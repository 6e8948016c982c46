import StrataBase

/// The header of a sparse VMDK extent: 512 bytes, little-endian; positions and sizes count sectors of 512 bytes.
///
/// Source: VMware's Virtual Disk Format 5.0, "Hosted Sparse Extents" and "Stream-Optimized Compressed".
struct VMDKHeader: Hashable {
    static let byteCount = 512
    /// "KDMV"
    static let signature: UInt32 = 0x564d_444b
    /// The grain directory's place when it stands in the footer.
    static let directoryAtEnd = UInt64.max
    private static let maximumGrainSectors = 0x20_0000
    private static let maximumTableEntries = 512
    /// Longer descriptors are refused. Bytes.
    static let maximumDescriptorSize = 1 << 20
    /// A grain is expanded as a whole. Bytes.
    private static let maximumCompressedGrain = 4 << 20
    /// 32 Mi tables of 512 grains of 64 KiB would make up a petabyte.
    private static let maximumTables = 32 << 20

    private struct Flags: OptionSet {
        let rawValue: UInt32
        static let zeroedGrains = Flags(rawValue: 1 << 2)
        static let compressed = Flags(rawValue: 1 << 16)
        static let markers = Flags(rawValue: 1 << 17)
    }

    /// Bytes.
    let diskSize: Int
    /// Bytes; not always a power of two.
    let grainSize: Int
    let grainsPerTable: Int
    /// Bytes of the disk that one grain table is for.
    var tableSpan: Int { grainSize * grainsPerTable }
    var tableCount: Int { diskSize.dividedRoundingUp(by: tableSpan) }
    /// Sector of the grain directory, 32 bits for each table.
    let directorySector: UInt64
    /// Where the descriptor is, in sectors; 0 for none.
    let descriptorSector: UInt64
    let descriptorSectors: UInt64
    /// Where the grains begin, in sectors.
    let dataSector: UInt64
    let isCompressed: Bool
    /// Whether the grain table entry 1 stands for zeroes.
    let hasZeroedGrains: Bool

    /// - Parameter bytes: 512 of them.
    init(decoding bytes: RawSpan) throws(BlockError) {
        guard bytes.checkedLittleEndian(at: 0, as: UInt32.self) == Self.signature else { throw BlockError(.invalidArgument, "Image not in VMDK format") }
        let version: UInt32 = bytes.checkedLittleEndian(at: 4)
        guard (1...3).contains(version) else { throw BlockError(.unsupported, "Unsupported VMDK version \(version)") }
        let flags = Flags(rawValue: bytes.checkedLittleEndian(at: 8))
        let capacity: UInt64 = bytes.checkedLittleEndian(at: 12)
        let grainSectors: UInt64 = bytes.checkedLittleEndian(at: 20)
        descriptorSector = bytes.checkedLittleEndian(at: 28)
        descriptorSectors = bytes.checkedLittleEndian(at: 36)
        let tableEntries: UInt32 = bytes.checkedLittleEndian(at: 44)
        directorySector = bytes.checkedLittleEndian(at: 56)
        dataSector = bytes.checkedLittleEndian(at: 64)
        isCompressed = flags.contains(.compressed)
        hasZeroedGrains = flags.contains(.zeroedGrains)

        guard tableEntries <= Self.maximumTableEntries else { throw BlockError(.corruptImage, "L2 table size too big") }
        guard tableEntries > 0, grainSectors > 0 else { throw BlockError(.corruptImage, "L1 entry size is invalid") }
        guard grainSectors <= Self.maximumGrainSectors else { throw BlockError(.corruptImage, "Invalid granularity, image may be corrupt") }
        grainSize = Int(grainSectors) * 512
        grainsPerTable = Int(tableEntries)
        guard capacity <= UInt64(Int.max / 512) else { throw BlockError(.tooLarge, "The image claims a size of \(capacity) sectors") }
        diskSize = Int(capacity) * 512
        guard tableCount <= Self.maximumTables else { throw BlockError(.tooLarge, "L1 size too big") }
        if isCompressed {
            let method: UInt16 = bytes.checkedLittleEndian(at: 77)
            guard method == 1 else { throw BlockError(.unsupported, "VMDK compression method \(method) is not supported") }
            guard grainSize <= Self.maximumCompressedGrain else { throw BlockError(.tooLarge, "Compressed grains of \(grainSize) bytes are not supported") }
            guard flags.contains(.markers) else { throw BlockError(.unsupported, "Compressed VMDK images without markers are not supported") }
        }
    }
}
