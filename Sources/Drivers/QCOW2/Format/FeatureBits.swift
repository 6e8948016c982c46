import StrataBase

/// The three feature bit fields of a version 3 header. Source: docs/interop/qcow2, "Header", bytes 72 to 95.

/// Bits a reader must understand or refuse the image.
@frozen
package struct IncompatibleFeatures: OptionSet, Hashable, Sendable {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The refcounts on disk may be older than the mapping; they are rebuilt before the image is written.
    package static let dirty = Self(rawValue: 1 << 0)
    /// Somebody found the metadata inconsistent; the image is not written until it is repaired.
    package static let corrupt = Self(rawValue: 1 << 1)
    package static let externalDataFile = Self(rawValue: 1 << 2)
    /// The compression type field says something else than zlib.
    package static let compressionType = Self(rawValue: 1 << 3)
    package static let extendedL2 = Self(rawValue: 1 << 4)

    /// Every bit that the format defines so far.
    package static let known: Self = [.dirty, .corrupt, .externalDataFile, .compressionType, .extendedL2]
}

/// Bits that a reader may ignore and must keep.
@frozen
package struct CompatibleFeatures: OptionSet, Hashable, Sendable {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }

    /// Refcount updates may be postponed behind the dirty bit. A permission, not a duty: this driver keeps refcounts exact.
    package static let lazyRefcounts = Self(rawValue: 1 << 0)
}

/// Bits that a writer clears unless it maintains what they stand for.
@frozen
package struct AutoclearFeatures: OptionSet, Hashable, Sendable {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The bitmaps extension is consistent with the disk.
    package static let bitmaps = Self(rawValue: 1 << 0)
    /// The external data file is a raw image by itself.
    package static let rawExternalData = Self(rawValue: 1 << 1)
}

/// One row of the feature name table: what a bit is called, for messages about bits that this program does not know.
/// Source: docs/interop/qcow2, "Feature name table". 48 bytes.
package struct FeatureName: Hashable, Sendable {
    package static let encodedSize = 48

    package enum Kind: UInt8, Sendable { case incompatible = 0, compatible = 1, autoclear = 2 }

    /// The field the bit is in; other values than `Kind`'s are kept but name nothing.
    package var kind: UInt8
    /// 0 to 63.
    package var bit: UInt8
    package var name: String

    package init(_ kind: Kind, bit: UInt8, name: String) {
        self.kind = kind.rawValue
        self.bit = bit
        self.name = name
    }

    /// - Precondition: `offset` starts a whole row inside `bytes`.
    init(decoding bytes: RawSpan, at offset: Int) {
        kind = bytes.checkedBigEndian(at: offset)
        bit = bytes.checkedBigEndian(at: offset + 1)
        var text: [UInt8] = []
        for position in 2..<Self.encodedSize {
            let byte = bytes.checkedBigEndian(at: offset + position, as: UInt8.self)
            if byte == 0 { break }
            // Control bytes from an untrusted image do not reach a terminal.
            text.append(byte < 0x20 || byte == 0x7f ? UInt8(ascii: "?") : byte)
        }
        name = String(decoding: text, as: UTF8.self)
    }

    func encoded() -> [UInt8] {
        let text = name.utf8.prefix(Self.encodedSize - 2)
        return [kind, bit] + text + [UInt8](repeating: 0, count: Self.encodedSize - 2 - text.count)
    }

    /// The names that QEMU's tools write into every version 3 image.
    package static let standardTable: [FeatureName] = [
        FeatureName(.incompatible, bit: 0, name: "dirty bit"),
        FeatureName(.incompatible, bit: 1, name: "corrupt bit"),
        FeatureName(.incompatible, bit: 2, name: "external data file"),
        FeatureName(.incompatible, bit: 3, name: "compression type"),
        FeatureName(.incompatible, bit: 4, name: "extended L2 entries"),
        FeatureName(.compatible, bit: 0, name: "lazy refcounts"),
        FeatureName(.autoclear, bit: 0, name: "bitmaps"),
        FeatureName(.autoclear, bit: 1, name: "raw external data"),
    ]

    /// Names the incompatible bits in `features`, by the image's own table and in its order where it has them, the others by one number.
    static func describe(_ features: IncompatibleFeatures, in table: [FeatureName]) -> String {
        var (names, rest): ([String], UInt64) = ([], features.rawValue)
        for row in table where row.kind == Kind.incompatible.rawValue && row.bit < 64 && !row.name.isEmpty && rest & (1 << UInt64(row.bit)) != 0 {
            names.append(row.name)
            rest &= ~(1 << UInt64(row.bit))
        }
        if rest != 0 { names.append("Unknown incompatible feature: \(String(rest, radix: 16))") }
        return names.joined(separator: ", ")
    }
}
