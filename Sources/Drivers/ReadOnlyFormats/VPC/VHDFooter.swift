import StrataBase

/// The footer of a VHD image: 512 bytes, big-endian, at the end of the file, and at its start too unless the image is fixed.
///
/// Source: Virtual Hard Disk Image Format Specification, version 1.0, "Hard Disk Footer Format".
struct VHDFooter: Hashable {
    static let byteCount = 512
    /// "conectix"
    static let cookie: UInt64 = 0x636f_6e65_6374_6978
    /// 2040 GiB.
    private static let maximumSectors = 0xff00_0000
    /// The largest geometry. It stands for all disks that are larger.
    private static let maximumGeometrySectors = 65535 * 16 * 255
    private static let checksumOffset = 64

    enum DiskType: Hashable { case fixed, dynamic }

    let type: DiskType
    /// Where the dynamic disk header is; meaningless in a fixed image.
    let dataOffset: UInt64
    /// Bytes, a multiple of 512.
    let diskSize: Int

    static func isThere(in bytes: RawSpan) -> Bool { bytes.checkedBigEndian(at: 0, as: UInt64.self) == cookie }

    /// - Parameter bytes: 512 of them.
    init(decoding bytes: RawSpan) throws(BlockError) {
        guard Self.isThere(in: bytes) else { throw BlockError(.invalidArgument, "invalid VPC image") }
        // The one's complement of the sum of all bytes but its own.
        var sum: UInt32 = 0
        for index in 0..<Self.byteCount where !(Self.checksumOffset..<Self.checksumOffset + 4).contains(index) {
            sum += UInt32(bytes.checkedBigEndian(at: index, as: UInt8.self))
        }
        guard ~sum == bytes.checkedBigEndian(at: Self.checksumOffset, as: UInt32.self) else { throw BlockError(.corruptImage, "Incorrect header checksum") }
        switch bytes.checkedBigEndian(at: 60, as: UInt32.self) {
        case 2: type = .fixed
        case 3: type = .dynamic
        case 4: throw BlockError(.unsupported, "Differencing VHD images are not supported")
        case let number: throw BlockError(.unsupported, "VHD images of type \(number) are not supported")
        }
        dataOffset = bytes.checkedBigEndian(at: 16)
        let sectors = Self.sectors(bytes)
        guard sectors <= Self.maximumSectors else { throw BlockError(.tooLarge, "VHD images of more than 2040 GiB are not supported: this one claims \(sectors) sectors") }
        diskSize = Int(sectors) * 512
    }

    /// Virtual PC, and QEMU with it, gives its guests the disk that the geometry makes, which may be smaller than the size that was asked for. All
    /// others mean the size.
    private static func sectors(_ bytes: RawSpan) -> UInt64 {
        let size: UInt64 = bytes.checkedBigEndian(at: 48) / 512
        let creator: UInt32 = bytes.checkedBigEndian(at: 28)
        let geometrySectors =
            Int(bytes.checkedBigEndian(at: 56, as: UInt16.self)) * Int(bytes.checkedBigEndian(at: 58, as: UInt8.self)) * Int(bytes.checkedBigEndian(at: 59, as: UInt8.self))
        let isByGeometry = creator == 0x7670_6320 /* "vpc " */ || creator == 0x7165_6d75 /* "qemu" */
        return isByGeometry && geometrySectors != maximumGeometrySectors ? UInt64(geometrySectors) : size
    }
}

/// What a dynamic image has besides: 1024 bytes, big-endian. Source: as above, "Dynamic Disk Header Format".
struct VHDDynamicHeader: Hashable {
    static let byteCount = 1024
    /// "cxsparse"
    private static let cookie: UInt64 = 0x6378_7370_6172_7365
    private static let maximumEntries = Int(Int32.max) / 4

    /// Where the block allocation table begins: 32 bits for each block. Bytes, a multiple of 512.
    let tableOffset: UInt64
    let entryCount: Int
    /// Bytes of data in a block, a power of two and at least 512.
    let blockSize: Int
    /// Bytes in front of each block's data: a bit for each sector, in whole sectors. In a dynamic image what a bit that is not set stands for is zero anyway.
    var bitmapSize: Int { (blockSize / 512 / 8).roundedUp(to: 512) }

    /// - Parameters:
    ///   - bytes: 1024 of them.
    ///   - diskSize: bytes; the table must have room for it.
    init(decoding bytes: RawSpan, diskSize: Int) throws(BlockError) {
        guard bytes.checkedBigEndian(at: 0, as: UInt64.self) == Self.cookie else { throw BlockError(.corruptImage, "Invalid header magic") }
        tableOffset = bytes.checkedBigEndian(at: 16)
        let entryCount: UInt32 = bytes.checkedBigEndian(at: 28)
        let blockSize: UInt32 = bytes.checkedBigEndian(at: 32)
        guard blockSize >= 512, Int(blockSize).isPowerOfTwo else { throw BlockError(.corruptImage, "Invalid block size \(blockSize)") }
        guard entryCount <= Self.maximumEntries else { throw BlockError(.tooLarge, "Max Table Entries too large (\(entryCount))") }
        guard Int(entryCount) >= diskSize.dividedRoundingUp(by: Int(blockSize)) else { throw BlockError(.corruptImage, "Page table too small") }
        guard tableOffset.isMultiple(of: 512) else { throw BlockError(.corruptImage, "The block allocation table does not begin with a sector (offset \(tableOffset))") }
        self.entryCount = Int(entryCount)
        self.blockSize = Int(blockSize)
    }
}
