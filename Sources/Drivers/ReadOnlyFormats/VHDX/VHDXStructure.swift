import StrataBase

// The structures at the start of a VHDX file, little-endian. Source: [MS-VHDX], sections 2.2 and 2.6.

/// A 128-bit identifier as its bytes lie in the file.
struct VHDXIdentifier: Hashable {
    let low, high: UInt64

    init(_ low: UInt64, _ high: UInt64) { (self.low, self.high) = (low, high) }

    init(_ bytes: RawSpan, at offset: Int) {
        low = bytes.checkedLittleEndian(at: offset)
        high = bytes.checkedLittleEndian(at: offset + 8)
    }

    static let none = VHDXIdentifier(0, 0)
    static let blockTableRegion = VHDXIdentifier(0x4200_f623_2dc2_7766, 0x084a_fd9b_5e11_649d)
    static let metadataRegion = VHDXIdentifier(0x4b9a_4790_8b7c_a206, 0x6e88_0f05_5f57_feb8)
    static let fileParameters = VHDXIdentifier(0x4d43_fa36_caa1_6737, 0x6be7_44aa_f033_b6b3)
    static let diskSize = VHDXIdentifier(0x4876_cd1b_2fa5_4224, 0xb8f4_3bd8_be5d_11b2)
    static let diskIdentifier = VHDXIdentifier(0x4523_b2e6_beca_12ab, 0x46c7_00e0_09c3_ef93)
    static let logicalSectorSize = VHDXIdentifier(0x4709_a96f_8141_bf1d, 0x5fab_faa8_33f2_47ba)
    static let physicalSectorSize = VHDXIdentifier(0x4471_445d_cda3_48c7, 0x56c5_5152_88e9_c99c)
    static let parentLocator = VHDXIdentifier(0x454d_b30b_a8d3_5f2d, 0x0cab_3448_d8d3_f7ab)
}

/// One of the two headers, of which the newer valid one counts. 4096 bytes.
struct VHDXHeader: Hashable {
    static let byteCount = 4096
    static let places = [64 << 10, 128 << 10]

    let sequenceNumber: UInt64
    /// Not zero: the log has entries that have to be replayed.
    let logIdentifier: VHDXIdentifier
    let version: UInt16
    let logOffset: UInt64
    let logLength: UInt32

    /// Nil for bytes that are no valid header.
    init?(decoding bytes: RawSpan) {
        guard bytes.hasSignature("head", checksumOf: Self.byteCount) else { return nil }
        sequenceNumber = bytes.checkedLittleEndian(at: 8)
        logIdentifier = VHDXIdentifier(bytes, at: 48)
        version = bytes.checkedLittleEndian(at: 66)
        logLength = bytes.checkedLittleEndian(at: 68)
        logOffset = bytes.checkedLittleEndian(at: 72)
    }
}

/// Where the two things are that make up an image, the block allocation table and the metadata. 64 KiB, twice for safety.
struct VHDXRegionTable: Hashable {
    static let byteCount = 64 << 10
    static let places = [192 << 10, 256 << 10]
    private static let unit: UInt64 = 1 << 20
    private static let maximumEntries = 2047

    /// Bytes of the file.
    struct Region: Hashable {
        let offset, length: UInt64

        /// - Precondition: both have been checked, so that the ends are numbers.
        func overlaps(_ other: Region) -> Bool { offset < other.offset + other.length && other.offset < offset + length }
    }

    let blockTable: Region
    let metadata: Region

    static func isValid(_ bytes: RawSpan) -> Bool { bytes.hasSignature("regi", checksumOf: byteCount) }

    /// - Parameter header: the regions must leave its log alone.
    init(decoding bytes: RawSpan, beside header: VHDXHeader) throws(BlockError) {
        let count: UInt32 = bytes.checkedLittleEndian(at: 8)
        guard count <= Self.maximumEntries else { throw BlockError(.corruptImage, "The VHDX region table has \(count) entries") }
        var regions: [VHDXIdentifier: Region] = [:]
        var all = [try Self.region(header.logOffset, UInt64(header.logLength), "log")]
        for entry in 0..<Int(count) {
            let start = 16 + 32 * entry
            let identifier = VHDXIdentifier(bytes, at: start)
            let isKnown = identifier == .blockTableRegion || identifier == .metadataRegion
            let isRequired = bytes.checkedLittleEndian(at: start + 28, as: UInt32.self) & 1 == 1
            if isRequired, !isKnown { throw BlockError(.unsupported, "The VHDX image needs a region of a kind that is not supported") }
            let region = try Self.region(bytes.checkedLittleEndian(at: start + 16), UInt64(bytes.checkedLittleEndian(at: start + 24, as: UInt32.self)), "region \(entry)")
            if all.contains(where: region.overlaps) { throw BlockError(.corruptImage, "Region \(entry) of the VHDX image overlaps another one or the log") }
            all.append(region)
            if isKnown, regions.updateValue(region, forKey: identifier) != nil { throw BlockError(.corruptImage, "The VHDX region table has an entry twice") }
        }
        guard let blockTable = regions[.blockTableRegion], let metadata = regions[.metadataRegion] else {
            throw BlockError(.corruptImage, "The VHDX region table lacks the block allocation table or the metadata")
        }
        (self.blockTable, self.metadata) = (blockTable, metadata)
    }

    private static func region(_ offset: UInt64, _ length: UInt64, _ name: String) throws(BlockError) -> Region {
        guard offset >= unit, offset <= UInt64(Int.max) / 2, offset.isMultiple(of: unit), length > 0, length.isMultiple(of: unit) else {
            throw BlockError(.corruptImage, "The VHDX image's \(name) has offset \(offset) and length \(length)")
        }
        return Region(offset: offset, length: length)
    }
}

/// What the metadata say about the disk.
struct VHDXMetadata: Hashable {
    /// The table in front of the items. Bytes.
    static let tableSize = 64 << 10
    private static let maximumEntries = 2047
    private static let known: Set<VHDXIdentifier> = [
        .fileParameters, .diskSize, .diskIdentifier, .logicalSectorSize, .physicalSectorSize, .parentLocator,
    ]

    /// Where an item is. Bytes, inside the region.
    struct Item: Hashable {
        let offset: Int
        let byteCount: Int
    }

    private var items: [VHDXIdentifier: Item] = [:]

    /// - Parameters:
    ///   - bytes: the table.
    ///   - length: of the region.
    init(decoding bytes: RawSpan, length: Int) throws(BlockError) {
        guard bytes.starts(with: "metadata") else { throw BlockError(.corruptImage, "The VHDX metadata table has no signature") }
        let count: UInt16 = bytes.checkedLittleEndian(at: 10)
        guard count <= Self.maximumEntries else { throw BlockError(.corruptImage, "The VHDX metadata table has \(count) entries") }
        for entry in 0..<Int(count) {
            let start = 32 + 32 * entry
            let identifier = VHDXIdentifier(bytes, at: start)
            let flags: UInt32 = bytes.checkedLittleEndian(at: start + 24)
            guard Self.known.contains(identifier) else {
                if flags & 4 != 0 { throw BlockError(.unsupported, "The VHDX image needs metadata of a kind that is not supported") }
                continue
            }
            let offset = Int(bytes.checkedLittleEndian(at: start + 16, as: UInt32.self))
            let byteCount = Int(bytes.checkedLittleEndian(at: start + 20, as: UInt32.self))
            guard offset >= Self.tableSize, byteCount > 0, byteCount <= 1 << 20, offset + byteCount <= length else {
                throw BlockError(.corruptImage, "Item \(entry) of the VHDX metadata has offset \(offset) and length \(byteCount)")
            }
            guard items.updateValue(Item(offset: offset, byteCount: byteCount), forKey: identifier) == nil else {
                throw BlockError(.corruptImage, "The VHDX metadata table has an entry twice")
            }
        }
        let places = items.values.sorted { $0.offset < $1.offset }
        for (item, next) in zip(places, places.dropFirst()) where item.offset + item.byteCount > next.offset {
            throw BlockError(.corruptImage, "Items of the VHDX metadata overlap")
        }
    }

    /// - Throws: when there is none, or it has another length than such an item has.
    func item(_ identifier: VHDXIdentifier, _ name: String, byteCount: Int) throws(BlockError) -> Item {
        guard let item = items[identifier] else { throw BlockError(.corruptImage, "The VHDX metadata lack the \(name)") }
        guard item.byteCount == byteCount else { throw BlockError(.corruptImage, "The \(name) in the VHDX metadata has \(item.byteCount) bytes") }
        return item
    }
}

/// How the disk is cut into blocks.
struct VHDXGeometry: Hashable {
    private static let maximumDiskSize: UInt64 = 64 << 40
    /// So many sectors share a block of the file for their bitmap, whose entry stands in the table behind theirs.
    private static let sectorsPerBitmap = 1 << 23

    /// Bytes.
    let blockSize: Int
    let diskSize: Int
    /// Entries for blocks between two entries for bitmaps.
    let blocksPerBitmap: Int

    init(blockSize: UInt32, flags: UInt32, diskSize: UInt64, sectorSize: UInt32) throws(BlockError) {
        if flags & 2 != 0 { throw BlockError(.unsupported, "Differencing VHDX images are not supported") }
        guard (1 << 20...256 << 20).contains(blockSize), Int(blockSize).isPowerOfTwo else { throw BlockError(.corruptImage, "The VHDX image has blocks of \(blockSize) bytes") }
        guard sectorSize == 512 || sectorSize == 4096 else { throw BlockError(.corruptImage, "The VHDX image has sectors of \(sectorSize) bytes") }
        guard diskSize <= Self.maximumDiskSize, diskSize.isMultiple(of: UInt64(sectorSize)) else { throw BlockError(.corruptImage, "The VHDX image claims a size of \(diskSize) bytes") }
        self.blockSize = Int(blockSize)
        self.diskSize = Int(diskSize)
        blocksPerBitmap = Self.sectorsPerBitmap * Int(sectorSize) / Int(blockSize)
    }

    var blockCount: Int { diskSize.dividedRoundingUp(by: blockSize) }
    /// Entries of the table, those for bitmaps between the others included.
    var entryCount: Int { blockCount == 0 ? 0 : blockCount + (blockCount - 1) / blocksPerBitmap }
    /// The entry of a block.
    func entry(of block: Int) -> Int { block + block / blocksPerBitmap }
}

extension RawSpan {
    fileprivate func starts(with text: String) -> Bool {
        text.utf8.enumerated().allSatisfy { checkedLittleEndian(at: $0.offset, as: UInt8.self) == $0.element }
    }

    /// Whether a structure begins with that word and then has the right checksum.
    fileprivate func hasSignature(_ word: String, checksumOf byteCount: Int) -> Bool {
        starts(with: word) && CRC32C.checksum(of: extracting(0..<byteCount), blank: 4..<8) == checkedLittleEndian(at: 4)
    }
}
