package import StrataBase

/// The header of a LUKS disk, version 1, as it lies on disk. Source: LUKS On-Disk Format Specification 1.2.3, section 2.
///
/// 592 bytes, big-endian. Decoding takes what is there; `LUKSLayout` judges whether it makes sense.
package struct LUKSHeader: Hashable, Sendable {
    package static let encodedSize = 592  // bytes
    package static let magic: [UInt8] = [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe]
    package static let slotCount = 8
    static let digestSize = 20
    package static let saltSize = 32

    package var cipherName: String
    /// Mode and vectors, as in `xts-plain64`.
    package var cipherMode: String
    package var hashName: String
    package var payloadOffsetSectors: UInt32
    /// Bytes of the master key.
    package var keySize: UInt32
    /// Tells whether a key is the master key.
    package var keyDigest: [UInt8]
    package var keyDigestSalt: [UInt8]
    package var keyDigestIterations: UInt32
    package var uuid: String
    package var slots: [KeySlot]

    /// A place for the master key, encrypted with a password.
    package struct KeySlot: Hashable, Sendable {
        static let encodedSize = 48  // bytes
        static let active: UInt32 = 0x00ac_71f3
        static let inactive: UInt32 = 0x0000_dead

        package var isActive: Bool
        package var iterations: UInt32
        package var salt: [UInt8]
        /// Where the key lies, from the start of the header.
        package var offsetSectors: UInt32
        package var stripes: UInt32
    }

    /// Where slot `index` lies in the header. Bytes.
    static func slotOffset(_ index: Int) -> Int { 208 + index * KeySlot.encodedSize }

    /// - Throws: `.corruptImage` for anything but a header of version 1 with readable names.
    package init(decoding bytes: [UInt8]) throws(BlockError) {
        guard bytes.count >= 8, Array(bytes[0..<6]) == Self.magic else { throw BlockError(.corruptImage, "Volume is not in LUKS format") }
        let version = Int(bytes[6]) << 8 | Int(bytes[7])
        guard version == 1 else { throw BlockError(.unsupported, "LUKS version \(version) is not supported") }
        guard bytes.count >= Self.encodedSize else { throw BlockError(.corruptImage, "The LUKS header is truncated") }
        func word(_ offset: Int) -> UInt32 { bytes[offset..<offset + 4].reduce(0) { $0 << 8 | UInt32($1) } }
        func name(_ offset: Int, _ field: String) throws(BlockError) -> String {
            let field32 = bytes[offset..<offset + 32]
            guard let end = field32.firstIndex(of: 0) else { throw BlockError(.corruptImage, "LUKS header \(field) is not NUL terminated") }
            return String(decoding: field32[..<end], as: UTF8.self)
        }
        cipherName = try name(8, "cipher name")
        cipherMode = try name(40, "cipher mode")
        hashName = try name(72, "hash spec")
        payloadOffsetSectors = word(104)
        keySize = word(108)
        keyDigest = Array(bytes[112..<132])
        keyDigestSalt = Array(bytes[132..<164])
        keyDigestIterations = word(164)
        let identifier = bytes[168..<208]
        uuid = String(decoding: identifier.prefix { $0 != 0 }, as: UTF8.self)
        slots = []
        for index in 0..<Self.slotCount {
            let start = Self.slotOffset(index)
            let state = word(start)
            guard state == KeySlot.active || state == KeySlot.inactive else {
                throw BlockError(.corruptImage, "Keyslot \(index) state (active/disable) is corrupted")
            }
            slots.append(
                KeySlot(
                    isActive: state == KeySlot.active, iterations: word(start + 4), salt: Array(bytes[start + 8..<start + 40]),
                    offsetSectors: word(start + 40), stripes: word(start + 44)))
        }
    }

    init(
        cipherName: String, cipherMode: String, hashName: String, payloadOffsetSectors: UInt32, keySize: UInt32, keyDigest: [UInt8],
        keyDigestSalt: [UInt8], keyDigestIterations: UInt32, uuid: String, slots: [KeySlot]
    ) {
        self.cipherName = cipherName
        self.cipherMode = cipherMode
        self.hashName = hashName
        self.payloadOffsetSectors = payloadOffsetSectors
        self.keySize = keySize
        self.keyDigest = keyDigest
        self.keyDigestSalt = keyDigestSalt
        self.keyDigestIterations = keyDigestIterations
        self.uuid = uuid
        self.slots = slots
    }

    /// The header as it goes to disk.
    package func encoded() -> [UInt8] {
        var bytes: [UInt8] = Self.magic + [0, 1]
        func append(_ text: String, _ size: Int) {
            let part = Array(text.utf8.prefix(size))
            bytes += part + [UInt8](repeating: 0, count: size - part.count)
        }
        append(cipherName, 32)
        append(cipherMode, 32)
        append(hashName, 32)
        bytes += payloadOffsetSectors.bigEndianBytes + keySize.bigEndianBytes + keyDigest + keyDigestSalt + keyDigestIterations.bigEndianBytes
        append(uuid, 40)
        for slot in slots { bytes += slot.encoded() }
        precondition(bytes.count == Self.encodedSize, "a LUKS header has 592 bytes")
        return bytes
    }
}

extension LUKSHeader.KeySlot {
    func encoded() -> [UInt8] {
        (isActive ? Self.active : Self.inactive).bigEndianBytes + iterations.bigEndianBytes + salt + offsetSectors.bigEndianBytes + stripes.bigEndianBytes
    }
}

extension UInt32 {
    var bigEndianBytes: [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: self >> UInt32(24 - 8 * $0)) } }
}
