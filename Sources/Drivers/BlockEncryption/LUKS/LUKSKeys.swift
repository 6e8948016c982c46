import IOCore
package import StorageSchema
package import StrataBase

/// Where a LUKS header and its key slots lie: a part of a node, or memory in tests. Positions are bytes from the start of the header.
package protocol KeyArea: Sendable {
    func read(at offset: Int, byteCount: Int) async throws(BlockError) -> [UInt8]
    func write(_ bytes: [UInt8], at offset: Int) async throws(BlockError)
    func flush() async throws(BlockError)
}

extension LUKSLayout {
    /// Reads and judges a header.
    /// - Parameter areaSize: as for `init`.
    package init(readingFrom area: some KeyArea, areaSize: Int? = nil) async throws(BlockError) {
        let count = min(areaSize ?? LUKSHeader.encodedSize, LUKSHeader.encodedSize)
        try self.init(try LUKSHeader(decoding: try await area.read(at: 0, byteCount: count)), areaSize: areaSize)
    }

    /// The master key, from the first slot that a password opens.
    /// - Throws: `.invalidArgument` when it opens none.
    package func masterKey(password: [UInt8], in area: some KeyArea) async throws(BlockError) -> [UInt8] {
        for slot in header.slots.indices {
            if let key = try await masterKey(password: password, slot: slot, in: area) { return key }
        }
        throw BlockError(.accessDenied, "Invalid password, cannot unlock any keyslot")
    }

    /// The master key from one slot; nil when the slot is not active or the password does not open it.
    func masterKey(password: [UInt8], slot index: Int, in area: some KeyArea) async throws(BlockError) -> [UInt8]? {
        let slot = header.slots[index]
        guard slot.isActive else { return nil }
        let material = try await area.read(at: materialOffset(index), byteCount: materialSize)
        let layout = self
        let found = await BlockingPool.run {
            Result { () throws(BlockError) -> [UInt8]? in
                let slotKey = try layout.hash.deriveKey(from: password, salt: slot.salt, iterations: slot.iterations, byteCount: layout.cipher.keySize)
                let buffer = IOBuffer(copying: material)
                try layout.cipher.cipher(key: slotKey).decrypt(buffer.vector, at: 0)
                let splitter = AntiForensic(hash: layout.hash, stripes: Self.stripes)
                let key = try splitter.merge(buffer.copyToArray(), byteCount: layout.cipher.keySize)
                return try layout.isMasterKey(key) ? key : nil
            }
        }
        return try found.get()
    }

    private func isMasterKey(_ key: [UInt8]) throws(BlockError) -> Bool {
        try Self.digest(of: key, hash, salt: header.keyDigestSalt, iterations: header.keyDigestIterations) == header.keyDigest
    }

    private static func digest(of key: [UInt8], _ hash: HashAlgorithm, salt: [UInt8], iterations: UInt32) throws(BlockError) -> [UInt8] {
        try hash.deriveKey(from: key, salt: salt, iterations: iterations, byteCount: LUKSHeader.digestSize)
    }

    /// What a slot becomes when a password shall open it: the slot, active, and the bytes at its place.
    func makeSlot(_ index: Int, password: [UInt8], masterKey: [UInt8], iterationTime: Int) async throws(BlockError) -> (slot: LUKSHeader.KeySlot, material: [UInt8]) {
        let layout = self
        let made = await BlockingPool.run {
            Result { () throws(BlockError) -> (slot: LUKSHeader.KeySlot, material: [UInt8]) in
                var slot = layout.header.slots[index]
                slot.isActive = true
                slot.salt = try CipherLibrary.randomBytes(LUKSHeader.saltSize)
                slot.iterations = try Self.iterations(layout.hash, keySize: layout.cipher.keySize, milliseconds: iterationTime)
                let slotKey = try layout.hash.deriveKey(from: password, salt: slot.salt, iterations: slot.iterations, byteCount: layout.cipher.keySize)
                let spread = try AntiForensic(hash: layout.hash, stripes: Self.stripes).split(masterKey)
                let buffer = IOBuffer(copying: spread + [UInt8](repeating: 0, count: layout.materialSize - spread.count))
                try layout.cipher.cipher(key: slotKey).encrypt(buffer.vector, into: buffer.vector, at: 0)
                return (slot, buffer.copyToArray())
            }
        }
        return try made.get()
    }

    /// The milliseconds of `iter-time`; two seconds when nothing is said.
    static func iterationTime(_ milliseconds: Int?) throws(BlockError) -> Int {
        let time = milliseconds ?? 2000
        guard time >= 0, time <= 1_000_000 else { throw BlockError(.invalidArgument, "'iter-time' must be between 0 and 1000000 milliseconds, not \(time)") }
        return time
    }

    /// The format's own least number is 1000.
    private static func iterations(_ hash: HashAlgorithm, keySize: Int, milliseconds: Int) throws(BlockError) -> UInt32 {
        let wanted = try hash.iterationsPerSecond(keySize: keySize) * milliseconds / 1000
        return UInt32(min(max(wanted, 1000), Int(maximumIterations)))
    }

    // MARK: A new header

    /// Makes a header with one active slot and writes it, the header last.
    /// - Parameter area: at least as long as the options' `headerSize`; reads as zeroes where nothing is written.
    /// - Returns: the header, and the master key.
    package static func format(
        _ area: some KeyArea, _ options: QCryptoBlockCreateOptionsLUKS, password: [UInt8]
    ) async throws(BlockError) -> (layout: LUKSLayout, masterKey: [UInt8]) {
        let choice = try DiskCipherChoice(options)
        let hash = try DiskCipherChoice.hash(options.hashAlg ?? .sha256)
        let time = try iterationTime(options.iterTime)
        let payload = payloadOffset(keySize: choice.keySize)
        let step = materialSize(keySize: choice.keySize).roundedUp(to: alignment)
        let slots = (0..<LUKSHeader.slotCount).map { index in
            LUKSHeader.KeySlot(
                isActive: false, iterations: 0, salt: [UInt8](repeating: 0, count: LUKSHeader.saltSize),
                offsetSectors: UInt32((alignment + index * step) / DiskCipher.sectorSize), stripes: UInt32(stripes))
        }
        let made = await BlockingPool.run {
            Result { () throws(BlockError) -> (LUKSHeader, [UInt8]) in
                let key = try CipherLibrary.randomBytes(choice.keySize)
                let salt = try CipherLibrary.randomBytes(LUKSHeader.saltSize)
                // The digest is looked at once for each try of a password: an eighth of the time is enough for it.
                let iterations = try iterations(hash, keySize: LUKSHeader.digestSize, milliseconds: time / 8)
                let header = LUKSHeader(
                    cipherName: DiskCipherChoice.cipherName, cipherMode: choice.modeText, hashName: hash.rawValue,
                    payloadOffsetSectors: UInt32(payload / DiskCipher.sectorSize), keySize: UInt32(choice.keySize),
                    keyDigest: try digest(of: key, hash, salt: salt, iterations: iterations), keyDigestSalt: salt, keyDigestIterations: iterations,
                    uuid: try randomUUID(), slots: slots)
                return (header, key)
            }
        }
        let (header, key) = try made.get()
        var layout = try LUKSLayout(header)
        let (slot, material) = try await layout.makeSlot(0, password: password, masterKey: key, iterationTime: time)
        layout.header.slots[0] = slot
        try await area.write(material, at: layout.materialOffset(0))
        try await area.flush()
        try await area.write(layout.header.encoded(), at: 0)
        try await area.flush()
        return (layout, key)
    }

    /// A random UUID (RFC 9562, version 4).
    private static func randomUUID() throws(BlockError) -> String {
        var bytes = try CipherLibrary.randomBytes(16)
        bytes[6] = bytes[6] & 0x0f | 0x40
        bytes[8] = bytes[8] & 0x3f | 0x80
        var text = ""
        for (index, byte) in bytes.enumerated() {
            if [4, 6, 8, 10].contains(index) { text += "-" }
            text += (byte < 16 ? "0" : "") + String(byte, radix: 16)
        }
        return text
    }
}
