import StrataBase

/// What an internal snapshot's record says: where its data is, and when and of what it was taken. Source: docs/interop/qcow2, "Snapshots".
///
/// Names and extra data are kept byte by byte, so that a record that is written again is the one that was read.
struct SnapshotRecord: Hashable, Sendable {
    static let fixedSize = 40
    /// QEMU's limit for extra data, in bytes.
    static let maximumExtraSize = 1024

    var l1TableOffset: UInt64
    /// Entries.
    var l1Size: UInt32
    let identifierBytes: [UInt8]
    let nameBytes: [UInt8]
    /// When it was taken, since 1970 (UTC), and the guest's running time until then.
    let dateSeconds: UInt32, dateNanoseconds: UInt32, clockNanoseconds: UInt64
    /// The field of 32 bits, which the extra data replaces.
    private let shortStateSize: UInt32
    /// What follows the fixed part: a 64-bit state size, the disk's size, a count of instructions, and whatever later formats add.
    var extraData: [UInt8]

    /// As in QEMU a NUL ends them.
    var identifier: String { String(decoding: identifierBytes.prefix { $0 != 0 }, as: UTF8.self) }
    var name: String { String(decoding: nameBytes.prefix { $0 != 0 }, as: UTF8.self) }
    /// Bytes, with the padding to eight.
    var encodedSize: Int { (Self.fixedSize + extraData.count + identifierBytes.count + nameBytes.count).roundedUp(to: 8) }

    private func extra(at offset: Int) -> UInt64? {
        guard extraData.count >= offset + 8 else { return nil }
        return extraData[offset..<offset + 8].reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// Bytes of saved machine state.
    var stateSize: UInt64 { extra(at: 0) ?? UInt64(shortStateSize) }
    /// The disk's size when it was taken, in bytes; nil where a version 2 image does not say: then it is what it is now.
    var diskSize: UInt64? { extra(at: 8) }
    /// The guest's count of instructions; nil where none was recorded.
    var instructionCount: UInt64? { extra(at: 16).flatMap { $0 == .max ? nil : $0 } }

    init(
        l1TableOffset: UInt64, l1Size: UInt32, identifier: String, name: String, dateSeconds: UInt32, dateNanoseconds: UInt32,
        clockNanoseconds: UInt64, diskSize: UInt64, instructionCount: UInt64?
    ) {
        self.l1TableOffset = l1TableOffset
        self.l1Size = l1Size
        identifierBytes = Array(identifier.utf8)
        nameBytes = Array(name.utf8)
        self.dateSeconds = dateSeconds
        self.dateNanoseconds = dateNanoseconds
        self.clockNanoseconds = clockNanoseconds
        shortStateSize = 0
        extraData = [UInt8](repeating: 0, count: 24)
        extraData.setBigEndian(diskSize, at: 8)
        extraData.setBigEndian(instructionCount ?? .max, at: 16)
    }

    /// Decodes the record at `start`.
    /// - Throws: `.truncated` when the bytes end inside it.
    init(decoding bytes: RawSpan, at start: Int) throws(DecodingFailure) {
        l1TableOffset = try bytes.bigEndian(at: start)
        l1Size = try bytes.bigEndian(at: start + 8)
        let identifierSize = Int(try bytes.bigEndian(at: start + 12, as: UInt16.self))
        let nameSize = Int(try bytes.bigEndian(at: start + 14, as: UInt16.self))
        let extraSize = Int(try bytes.bigEndian(at: start + 36, as: UInt32.self))
        // 32-bit sizes: the sum cannot overflow.
        let end = start + Self.fixedSize + extraSize + identifierSize + nameSize
        guard end <= bytes.byteCount else { throw .truncated(needed: end, available: bytes.byteCount) }
        dateSeconds = try bytes.bigEndian(at: start + 16)
        dateNanoseconds = try bytes.bigEndian(at: start + 20)
        clockNanoseconds = try bytes.bigEndian(at: start + 24)
        shortStateSize = try bytes.bigEndian(at: start + 32)
        let extra = start + Self.fixedSize
        extraData = HeaderExtensions.copy(bytes, at: extra, length: extraSize)
        identifierBytes = HeaderExtensions.copy(bytes, at: extra + extraSize, length: identifierSize)
        nameBytes = HeaderExtensions.copy(bytes, at: extra + extraSize + identifierSize, length: nameSize)
    }

    /// As it goes to disk, `encodedSize` bytes.
    func encoded() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.fixedSize)
        bytes.setBigEndian(l1TableOffset, at: 0)
        bytes.setBigEndian(l1Size, at: 8)
        bytes.setBigEndian(UInt16(truncatingIfNeeded: identifierBytes.count), at: 12)
        bytes.setBigEndian(UInt16(truncatingIfNeeded: nameBytes.count), at: 14)
        bytes.setBigEndian(dateSeconds, at: 16)
        bytes.setBigEndian(dateNanoseconds, at: 20)
        bytes.setBigEndian(clockNanoseconds, at: 24)
        bytes.setBigEndian(shortStateSize, at: 32)
        bytes.setBigEndian(UInt32(truncatingIfNeeded: extraData.count), at: 36)
        bytes += extraData + identifierBytes + nameBytes
        return bytes + [UInt8](repeating: 0, count: encodedSize - bytes.count)
    }
}

/// One entry of the bitmap directory. Source: docs/interop/qcow2, "Bitmap directory".
struct BitmapRecord: Hashable, Sendable {
    let tableOffset: UInt64
    /// Entries of eight bytes.
    let tableSize: UInt32
    /// Bytes, with the padding to eight.
    let encodedSize: Int

    static let tableOffsetMask: UInt64 = 0x00ff_ffff_ffff_fe00

    init(decoding bytes: RawSpan, at start: Int) throws(DecodingFailure) {
        tableOffset = try bytes.bigEndian(at: start)
        tableSize = try bytes.bigEndian(at: start + 8)
        let nameSize = Int(try bytes.bigEndian(at: start + 18, as: UInt16.self))
        let extraSize = Int(try bytes.bigEndian(at: start + 20, as: UInt32.self))
        let size = 24 + extraSize + nameSize
        guard start + size <= bytes.byteCount else { throw .truncated(needed: start + size, available: bytes.byteCount) }
        encodedSize = size.roundedUp(to: 8)
    }
}
