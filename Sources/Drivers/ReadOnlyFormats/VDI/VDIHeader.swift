import StrataBase

/// The header of a VDI image: 512 bytes, little-endian, of which the first 64 are text for people.
///
/// Source: the header's layout as VirtualBox's developers published it (forums.virtualbox.org, topic 8046), version 1.1.
struct VDIHeader: Hashable {
    static let byteCount = 512
    static let signature: UInt32 = 0xbeda_107f
    /// The one size of blocks that there is in practice. Bytes.
    static let blockSize = 1 << 20
    /// A block map may have no more entries, so that it is shorter than 2 GiB.
    static let maximumBlockCount = 0x1fff_ff80

    /// Who made the image: all its space allocated in advance, or as it was written.
    let isStatic: Bool
    /// Where the block map begins: 32 bits for each block. Bytes, a multiple of 512.
    let mapOffset: Int
    /// Where the blocks begin. Bytes, a multiple of 512.
    let dataOffset: Int
    /// Bytes, a multiple of 512.
    let diskSize: Int
    let blockCount: Int
    /// As the header says.
    let allocatedBlockCount: Int

    /// - Parameter bytes: 512 of them.
    init(decoding bytes: RawSpan) throws(BlockError) {
        func word(_ offset: Int) -> UInt32 { bytes.checkedLittleEndian(at: offset) }
        let signature = word(0x40)
        guard signature == Self.signature else {
            let digits = String(signature, radix: 16)
            throw BlockError(.invalidArgument, "Image not in VDI format (bad signature \(String(repeating: "0", count: 8 - digits.utf8.count))\(digits))")
        }
        let version = word(0x44)
        guard version == 0x1_0001 else { throw Self.unsupported("version \(version >> 16).\(version & 0xffff)") }
        let type = word(0x4c)
        mapOffset = Int(word(0x154))
        dataOffset = Int(word(0x158))
        let claimedSize: UInt64 = bytes.checkedLittleEndian(at: 0x170)
        blockCount = Int(word(0x180))
        allocatedBlockCount = Int(word(0x184))
        isStatic = type == 2

        let largest = UInt64(Self.maximumBlockCount * Self.blockSize)
        guard claimedSize <= largest else {
            throw BlockError(
                .unsupported, "Unsupported VDI image size (size is 0x\(String(claimedSize, radix: 16)), max supported is 0x\(String(largest, radix: 16)))")
        }
        diskSize = Int(claimedSize).roundedUp(to: 512)
        guard mapOffset.isAligned(to: 512) else { throw Self.unsupported("unaligned block map offset 0x\(String(mapOffset, radix: 16))") }
        guard dataOffset.isAligned(to: 512) else { throw Self.unsupported("unaligned data offset 0x\(String(dataOffset, radix: 16))") }
        guard word(0x168) == 512 else { throw Self.unsupported("sector size \(word(0x168)) is not 512") }
        guard word(0x178) == Self.blockSize else { throw Self.unsupported("block size \(word(0x178)) is not \(Self.blockSize)") }
        guard blockCount <= Self.maximumBlockCount else { throw Self.unsupported("too many blocks \(blockCount), max is \(Self.maximumBlockCount)") }
        guard diskSize <= blockCount * Self.blockSize else {
            throw Self.unsupported("disk size \(diskSize), image bitmap has room for \(blockCount * Self.blockSize)")
        }
        func isSet(_ offset: Int) -> Bool { bytes.checkedLittleEndian(at: offset, as: UInt64.self) != 0 || bytes.checkedLittleEndian(at: offset + 8, as: UInt64.self) != 0 }
        // Both belong to images that hold the differences from another one.
        if isSet(0x1a8) { throw Self.unsupported("non-NULL link UUID") }
        if isSet(0x1b8) { throw Self.unsupported("non-NULL parent UUID") }
        guard [1, 2].contains(type) else { throw Self.unsupported(type == 4 ? "differencing images" : type == 3 ? "undo images" : "image type \(type)") }
        guard word(0x17c) == 0 else { throw Self.unsupported("extra data of \(word(0x17c)) bytes in each block") }
    }

    private static func unsupported(_ what: String) -> BlockError { BlockError(.unsupported, "unsupported VDI image (\(what))") }
}
