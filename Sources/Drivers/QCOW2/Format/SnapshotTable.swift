import StrataBase

/// What an internal snapshot's record says about where its data is. Source: docs/interop/qcow2, "Snapshots".
struct SnapshotRecord: Hashable, Sendable {
    static let fixedSize = 40

    let l1TableOffset: UInt64
    /// Entries.
    let l1Size: UInt32
    let identifier: String
    let name: String
    /// When it was taken, since 1970 (UTC), and the guest's running time until then.
    let dateSeconds: UInt32, dateNanoseconds: UInt32, clockNanoseconds: UInt64
    /// Bytes of saved machine state.
    let stateSize: UInt64
    /// The guest's count of instructions; nil where none was recorded.
    let instructionCount: UInt64?
    /// Bytes, with the padding to eight.
    let encodedSize: Int

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
        // The 64-bit size, where the extra data has it, replaces the 32-bit one.
        let extra = start + Self.fixedSize
        stateSize = extraSize >= 8 ? try bytes.bigEndian(at: extra) : UInt64(try bytes.bigEndian(at: start + 32, as: UInt32.self))
        let count: UInt64 = extraSize >= 24 ? try bytes.bigEndian(at: extra + 16) : .max
        instructionCount = count == .max ? nil : count
        let text = extra + extraSize
        identifier = HeaderExtensions.text(bytes, at: text, length: identifierSize)
        name = HeaderExtensions.text(bytes, at: text + identifierSize, length: nameSize)
        encodedSize = (end - start).roundedUp(to: 8)
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
