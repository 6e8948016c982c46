import IOCore
package import StrataBase

/// The fixed part of the header. Source: docs/interop/qcow2, "Header". Big-endian; 72 bytes in version 2, at least 104 in version 3.
///
/// Decoding checks only what decides where fields are. Whether the values make sense together is `HeaderValidation`'s question.
package struct QCOW2Header: Hashable, Sendable {
    package static let magic: UInt32 = 0x5146_49fb
    package static let version2Size = 72
    /// The shortest version 3 header. The compression type lies in the byte after it.
    package static let version3Size = 104
    /// What this program writes: with the compression type and its padding.
    package static let fullSize = 112

    package var version: UInt32
    /// Where the backing file's name lies; zero without one. Bytes.
    package var backingNameOffset: UInt64
    package var backingNameSize: UInt32
    package var clusterBits: UInt32
    /// Virtual disk size in bytes.
    package var virtualSize: UInt64
    package var encryptionMethod: UInt32
    /// Entries of the active L1 table.
    package var l1Size: UInt32
    package var l1TableOffset: UInt64
    package var refcountTableOffset: UInt64
    package var refcountTableClusters: UInt32
    package var snapshotCount: UInt32
    package var snapshotTableOffset: UInt64
    package var incompatible: IncompatibleFeatures
    package var compatible: CompatibleFeatures
    package var autoclear: AutoclearFeatures
    /// The width of a refcount is `1 << refcountOrder` bits.
    package var refcountOrder: UInt32
    /// Bytes; extensions start here.
    package var headerLength: UInt32
    /// 0 zlib, 1 zstd.
    package var compressionType: UInt8

    var streamFormat: StreamFormat { compressionType == 1 ? .zstd : .deflate }

    /// Byte positions of the fields that change while an image is open.
    enum Field {
        static let version = 4
        static let virtualSize = 24
        static let l1Size = 36
        static let l1TableOffset = 40
        static let refcountTableOffset = 48
        static let refcountTableClusters = 56
        static let snapshotCount = 60
        static let snapshotTableOffset = 64
        /// Where the fields from the virtual size to the snapshot table end.
        static let tablesEnd = 72
        static let incompatible = 72
        static let compatible = 80
        static let autoclear = 88
        static let refcountOrder = 96
        static let headerLength = 100
    }

    package init(version: UInt32, clusterBits: UInt32, virtualSize: UInt64, refcountOrder: UInt32) {
        self.version = version
        backingNameOffset = 0
        backingNameSize = 0
        self.clusterBits = clusterBits
        self.virtualSize = virtualSize
        encryptionMethod = 0
        l1Size = 0
        l1TableOffset = 0
        refcountTableOffset = 0
        refcountTableClusters = 0
        snapshotCount = 0
        snapshotTableOffset = 0
        incompatible = []
        compatible = []
        autoclear = []
        self.refcountOrder = refcountOrder
        headerLength = UInt32(version >= 3 ? Self.fullSize : Self.version2Size)
        compressionType = 0
    }

    /// Decodes the header at the start of `bytes`, which may be longer.
    /// - Throws: `.invalid` for a foreign magic or a version other than 2 and 3, `.truncated` when a field is missing.
    package init(decoding bytes: RawSpan) throws(DecodingFailure) {
        guard try bytes.bigEndian(at: 0, as: UInt32.self) == Self.magic else { throw .invalid("Image is not in qcow2 format") }
        version = try bytes.bigEndian(at: Field.version)
        guard version == 2 || version == 3 else { throw .invalid("Unsupported qcow2 version \(version)") }
        backingNameOffset = try bytes.bigEndian(at: 8)
        backingNameSize = try bytes.bigEndian(at: 16)
        clusterBits = try bytes.bigEndian(at: 20)
        virtualSize = try bytes.bigEndian(at: Field.virtualSize)
        encryptionMethod = try bytes.bigEndian(at: 32)
        l1Size = try bytes.bigEndian(at: Field.l1Size)
        l1TableOffset = try bytes.bigEndian(at: Field.l1TableOffset)
        refcountTableOffset = try bytes.bigEndian(at: Field.refcountTableOffset)
        refcountTableClusters = try bytes.bigEndian(at: Field.refcountTableClusters)
        snapshotCount = try bytes.bigEndian(at: 60)
        snapshotTableOffset = try bytes.bigEndian(at: 64)
        guard version >= 3 else {
            // What version 2 leaves unsaid.
            incompatible = []
            compatible = []
            autoclear = []
            refcountOrder = 4
            headerLength = UInt32(Self.version2Size)
            compressionType = 0
            return
        }
        incompatible = IncompatibleFeatures(rawValue: try bytes.bigEndian(at: Field.incompatible))
        compatible = CompatibleFeatures(rawValue: try bytes.bigEndian(at: Field.compatible))
        autoclear = AutoclearFeatures(rawValue: try bytes.bigEndian(at: Field.autoclear))
        refcountOrder = try bytes.bigEndian(at: 96)
        headerLength = try bytes.bigEndian(at: 100)
        compressionType = headerLength > Self.version3Size ? try bytes.bigEndian(at: Self.version3Size) : 0
    }

    /// How many bytes `encoded` gives.
    package var encodedSize: Int { version >= 3 ? Self.fullSize : Self.version2Size }

    /// The header as it goes to disk, `encodedSize` bytes.
    package func encoded() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: encodedSize)
        bytes.setBigEndian(Self.magic, at: 0)
        bytes.setBigEndian(version, at: Field.version)
        bytes.setBigEndian(backingNameOffset, at: 8)
        bytes.setBigEndian(backingNameSize, at: 16)
        bytes.setBigEndian(clusterBits, at: 20)
        bytes.setBigEndian(virtualSize, at: Field.virtualSize)
        bytes.setBigEndian(encryptionMethod, at: 32)
        bytes.setBigEndian(l1Size, at: Field.l1Size)
        bytes.setBigEndian(l1TableOffset, at: Field.l1TableOffset)
        bytes.setBigEndian(refcountTableOffset, at: Field.refcountTableOffset)
        bytes.setBigEndian(refcountTableClusters, at: Field.refcountTableClusters)
        bytes.setBigEndian(snapshotCount, at: 60)
        bytes.setBigEndian(snapshotTableOffset, at: 64)
        guard version >= 3 else { return bytes }
        bytes.setBigEndian(incompatible.rawValue, at: Field.incompatible)
        bytes.setBigEndian(compatible.rawValue, at: Field.compatible)
        bytes.setBigEndian(autoclear.rawValue, at: Field.autoclear)
        bytes.setBigEndian(refcountOrder, at: 96)
        bytes.setBigEndian(UInt32(Self.fullSize), at: 100)
        bytes.setBigEndian(compressionType, at: Self.version3Size)
        return bytes
    }
}
