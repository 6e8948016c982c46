package import StrataBase

/// What the header extension area says. Source: docs/interop/qcow2, "Header extensions".
///
/// Each extension is a type, a length and its data padded to eight bytes; type zero ends the area, and so does the backing file's name.
package struct HeaderExtensions: Hashable, Sendable {
    package enum Kind {
        static let end: UInt32 = 0
        static let backingFormat: UInt32 = 0xe279_2aca
        static let featureNames: UInt32 = 0x6803_f857
        static let bitmaps: UInt32 = 0x2385_2875
        static let encryptionHeader: UInt32 = 0x0537_be77
        static let externalDataFile: UInt32 = 0x4441_5441
    }

    /// The format that the backing file was said to have when it was attached.
    package var backingFormat: String?
    package var featureNames: [FeatureName] = []
    package var bitmaps: BitmapsExtension?
    /// The name of the external data file; data, not a path that anybody opened.
    package var dataFileName: StoredName?
    package var encryptionHeader: EncryptionHeaderPlace?
    /// Extensions that this program does not know, with their data. They stay in the image untouched.
    package var unknown: [Unknown] = []

    package struct Unknown: Hashable, Sendable {
        package var type: UInt32
        package var data: [UInt8]
    }

    /// QEMU's limit for a stored format name, without the terminator of its own buffers.
    static let maximumFormatNameSize = 15

    package init() {}

    /// Whether the area, which goes up to `end` at most, ends within `bytes`. Positions as for `init`.
    static func areWhole(in bytes: RawSpan, from start: Int, to end: Int) -> Bool {
        var position = start
        while end - position >= 8 {
            guard let type: UInt32 = try? bytes.bigEndian(at: position), let length: UInt32 = try? bytes.bigEndian(at: position + 4) else { return false }
            if type == Kind.end { return true }
            position += 8 + Int(length).roundedUp(to: 8)
        }
        return position <= bytes.byteCount
    }

    /// Decodes the area from `start` up to `end`, both bytes from the start of the header cluster.
    /// - Throws: `.truncated` or `.invalid` when an extension reaches beyond `end` or has an impossible length.
    package init(decoding bytes: RawSpan, from start: Int, to end: Int) throws(DecodingFailure) {
        var position = start
        guard end <= bytes.byteCount else { throw .truncated(needed: end, available: bytes.byteCount) }
        while end - position >= 8 {
            let type: UInt32 = try bytes.bigEndian(at: position)
            let length = Int(try bytes.bigEndian(at: position + 4, as: UInt32.self))
            position += 8
            if type == Kind.end { return }
            guard length <= end - position else {
                throw .invalid("Header extension 0x\(String(type, radix: 16)) too large: \(length) bytes")
            }
            try decode(type: type, bytes, at: position, length: length)
            let padded = length.roundedUp(to: 8)
            if padded > end - position { return }
            position += padded
        }
    }

    private mutating func decode(type: UInt32, _ bytes: RawSpan, at start: Int, length: Int) throws(DecodingFailure) {
        switch type {
        case Kind.backingFormat:
            guard length <= Self.maximumFormatNameSize else {
                throw .invalid("Backing format name is \(length) bytes long, at most \(Self.maximumFormatNameSize) are allowed")
            }
            // No name is no format, as if the extension were not there.
            let name = StoredName(decoding: bytes, at: start, length: length)
            backingFormat = name.isEmpty ? nil : name.text
        case Kind.featureNames:
            // More rows than bits exist tell nothing; the rest of a hostile table is not worth memory.
            for row in 0..<min(length / FeatureName.encodedSize, 3 * 64) {
                featureNames.append(FeatureName(decoding: bytes, at: start + row * FeatureName.encodedSize))
            }
        case Kind.bitmaps:
            guard length == BitmapsExtension.encodedSize else {
                throw .invalid("bitmaps_ext: Invalid extension length")
            }
            bitmaps = try BitmapsExtension(decoding: bytes, at: start)
        case Kind.encryptionHeader:
            guard length == 16 else { throw .invalid("CRYPTO header extension size \(length), but expected size 16") }
            encryptionHeader = EncryptionHeaderPlace(offset: try bytes.bigEndian(at: start), length: try bytes.bigEndian(at: start + 8))
        case Kind.externalDataFile:
            dataFileName = StoredName(decoding: bytes, at: start, length: length)
        default:
            unknown.append(Unknown(type: type, data: Self.copy(bytes, at: start, length: length)))
        }
    }

    static func copy(_ bytes: RawSpan, at start: Int, length: Int) -> [UInt8] {
        var copy: [UInt8] = []
        copy.reserveCapacity(length)
        for position in start..<(start + length) { copy.append(bytes.checkedBigEndian(at: position)) }
        return copy
    }

    /// The bytes of the area for a new image, terminator included; a multiple of eight.
    package func encoded() -> [UInt8] {
        var area: [UInt8] = []
        func append(_ type: UInt32, _ data: [UInt8]) {
            let start = area.count
            area += [UInt8](repeating: 0, count: 8)
            area.setBigEndian(type, at: start)
            area.setBigEndian(UInt32(truncatingIfNeeded: data.count), at: start + 4)
            area += data
            while area.count % 8 != 0 { area.append(0) }
        }
        if let backingFormat { append(Kind.backingFormat, Array(backingFormat.utf8)) }
        if let dataFileName { append(Kind.externalDataFile, dataFileName.bytes) }
        if let encryptionHeader { append(Kind.encryptionHeader, encryptionHeader.encoded()) }
        if !featureNames.isEmpty {
            append(Kind.featureNames, featureNames.flatMap { $0.encoded() })
        }
        for extra in unknown { append(extra.type, extra.data) }
        append(Kind.end, [])
        return area
    }
}

/// Where the LUKS header of an encrypted image lies. Source: docs/interop/qcow2, "Full disk encryption header pointer". 16 bytes, big-endian.
package struct EncryptionHeaderPlace: Hashable, Sendable {
    /// More than the largest keys need, by far.
    static let maximumLength: UInt64 = 64 << 20

    package var offset: UInt64
    /// Bytes.
    package var length: UInt64

    func encoded() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 16)
        bytes.setBigEndian(offset, at: 0)
        bytes.setBigEndian(length, at: 8)
        return bytes
    }
}

/// The bitmaps header extension. Source: docs/interop/qcow2, "Bitmaps extension". 24 bytes, big-endian.
package struct BitmapsExtension: Hashable, Sendable {
    static let encodedSize = 24

    package var count: UInt32
    /// Bytes.
    package var directorySize: UInt64
    package var directoryOffset: UInt64

    init(decoding bytes: RawSpan, at start: Int) throws(DecodingFailure) {
        count = try bytes.bigEndian(at: start)
        guard try bytes.bigEndian(at: start + 4, as: UInt32.self) == 0 else {
            throw .reservedBitsSet(field: "the bitmaps header extension")
        }
        directorySize = try bytes.bigEndian(at: start + 8)
        directoryOffset = try bytes.bigEndian(at: start + 16)
    }
}
