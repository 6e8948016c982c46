package import IOCore
package import StorageSchema
package import StrataBase

/// A header that makes sense: known algorithms, key slots that overlap nothing, numbers that are bounded. Nothing beyond the header has been read.
package struct LUKSLayout: Hashable, Sendable {
    package internal(set) var header: LUKSHeader
    package let cipher: DiskCipherChoice
    package let hash: HashAlgorithm

    /// Into how many parts keys are spread, everywhere.
    static let stripes = 4000
    /// More iterations of a derivation than this take minutes on any machine: no header needs them, and one that claims them is an attack.
    package static let maximumIterations: UInt32 = 1 << 28
    /// Slots begin at multiples of this, and so does the data. Bytes.
    static let alignment = 4096

    /// Where data begins, in bytes from the start of the header.
    package var payloadOffset: Int { Int(header.payloadOffsetSectors) * DiskCipher.sectorSize }
    /// What a slot's key takes on disk: whole sectors. Bytes.
    var materialSize: Int { Self.materialSize(keySize: cipher.keySize) }
    static func materialSize(keySize: Int) -> Int { (keySize * stripes).roundedUp(to: DiskCipher.sectorSize) }

    /// Bytes from the start of the header to the place of a slot's key.
    func materialOffset(_ slot: Int) -> Int { Int(header.slots[slot].offsetSectors) * DiskCipher.sectorSize }

    /// - Parameters:
    ///   - header: as decoded.
    ///   - areaSize: how many bytes there are for header and key slots; nil if only the payload's offset bounds them.
    package init(_ header: LUKSHeader, areaSize: Int? = nil) throws(BlockError) {
        self.header = header
        hash = try DiskCipherChoice.hash(named: header.hashName)
        try Self.checkSlots(header)
        cipher = try DiskCipherChoice(header)
        if let areaSize {
            for slot in header.slots.indices where header.slots[slot].isActive && materialOffset(slot) + materialSize > areaSize {
                throw BlockError(.corruptImage, "Keyslot \(slot) lies beyond the end of the encryption header")
            }
        }
    }

    private static func checkSlots(_ header: LUKSHeader) throws(BlockError) {
        guard header.keyDigestIterations > 0 else { throw BlockError(.corruptImage, "LUKS key iteration count is zero") }
        guard header.keyDigestIterations <= maximumIterations else {
            throw BlockError(.corruptImage, "LUKS key iteration count \(header.keyDigestIterations) is larger than \(maximumIterations)")
        }
        let headerSectors = LUKSHeader.encodedSize.dividedRoundingUp(by: DiskCipher.sectorSize)
        guard header.payloadOffsetSectors >= headerSectors else { throw BlockError(.corruptImage, "LUKS payload is overlapping with the header") }
        // Any size of a key that a header can state fits: 64-bit arithmetic.
        let sectors = Int(header.keySize) * stripes / DiskCipher.sectorSize + (Int(header.keySize) * stripes % DiskCipher.sectorSize == 0 ? 0 : 1)
        for (index, slot) in header.slots.enumerated() {
            let start = Int(slot.offsetSectors)
            guard slot.stripes == stripes else { throw BlockError(.corruptImage, "Keyslot \(index) is corrupted (stripes \(slot.stripes) != \(stripes))") }
            guard start >= headerSectors else { throw BlockError(.corruptImage, "Keyslot \(index) is overlapping with the LUKS header") }
            if slot.isActive {
                guard slot.iterations > 0 else { throw BlockError(.corruptImage, "Keyslot \(index) iteration count is zero") }
                guard slot.iterations <= maximumIterations else {
                    throw BlockError(.corruptImage, "Keyslot \(index) iteration count \(slot.iterations) is larger than \(maximumIterations)")
                }
            }
            guard start + sectors <= Int(header.payloadOffsetSectors) else {
                throw BlockError(.corruptImage, "Keyslot \(index) is overlapping with the encrypted payload")
            }
            for other in (index + 1)..<max(index + 1, header.slots.count) {
                let otherStart = Int(header.slots[other].offsetSectors)
                if start + sectors > otherStart, otherStart + sectors > start {
                    throw BlockError(.corruptImage, "Keyslots \(index) and \(other) are overlapping in the header")
                }
            }
        }
    }

    /// What users are told about it.
    package var description: QCryptoBlockInfoLUKS {
        QCryptoBlockInfoLUKS(
            cipherAlg: cipher.algorithm, cipherMode: cipher.modeName, ivgenAlg: cipher.vectorName, ivgenHashAlg: cipher.vectorHash,
            hashAlg: QCryptoHashAlgo(rawValue: hash.rawValue) ?? .sha256, detachedHeader: false, payloadOffset: payloadOffset,
            masterKeyIters: Int(header.keyDigestIterations), uuid: header.uuid,
            slots: header.slots.indices.map { index in
                let slot = header.slots[index]
                return QCryptoBlockInfoLUKSSlot(
                    active: slot.isActive, iters: slot.isActive ? Int(slot.iterations) : nil, stripes: slot.isActive ? Int(slot.stripes) : nil,
                    keyOffset: materialOffset(index))
            })
    }

    /// Where data begins in a new disk with keys of `keySize` bytes: behind the header and eight slots.
    static func payloadOffset(keySize: Int) -> Int {
        alignment + LUKSHeader.slotCount * materialSize(keySize: keySize).roundedUp(to: alignment)
    }
}

extension QCryptoBlockCreateOptionsLUKS {
    /// How many bytes header and key slots of a new disk take.
    package func headerSize() throws(BlockError) -> Int { LUKSLayout.payloadOffset(keySize: try DiskCipherChoice(self).keySize) }

    /// - Throws: what making a header with these options would refuse, passwords apart.
    package func check() throws(BlockError) {
        _ = try DiskCipherChoice(self)
        _ = try DiskCipherChoice.hash(hashAlg ?? .sha256)
        _ = try LUKSLayout.iterationTime(iterTime)
    }
}
