package import IOCore
package import StorageSchema
package import StrataBase

/// A cipher as a LUKS header names it, and as QAPI does.
package struct DiskCipherChoice: Hashable, Sendable {
    /// Bytes of an AES key: 16, 24 or 32.
    package let algorithmKeySize: Int
    package let mode: DiskCipher.Mode
    package let vector: DiskCipher.Vector

    static let cipherName = "aes"

    /// Bytes of the whole key: XTS has two.
    package var keySize: Int { mode == .xts ? 2 * algorithmKeySize : algorithmKeySize }

    /// What the header says.
    /// - Throws: `.unsupported` with the name that is not known.
    package init(_ header: LUKSHeader) throws(BlockError) {
        let parts = header.cipherMode.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 2 else { throw BlockError(.corruptImage, "Unexpected cipher mode string format '\(header.cipherMode)'") }
        guard let mode = DiskCipher.Mode(rawValue: parts[0]) else { throw BlockError(.unsupported, "Cipher mode '\(parts[0])' not supported") }
        self.mode = mode
        let vectorParts = parts[1].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        switch (vectorParts[0], vectorParts.count > 1 ? vectorParts[1] : nil) {
        case ("plain", nil): vector = .plain
        case ("plain64", nil): vector = .plain64
        case ("essiv", let name?): vector = .essiv(try Self.hash(named: name))
        case ("essiv", nil): throw BlockError(.corruptImage, "Hash algorithm is missing in the IV generator 'essiv'")
        default: throw BlockError(.unsupported, "IV generator '\(parts[1])' not supported")
        }
        let size = mode == .xts ? Int(header.keySize) / 2 : Int(header.keySize)
        guard header.cipherName == Self.cipherName, [16, 24, 32].contains(size), mode != .xts || header.keySize.isMultiple(of: 2) else {
            throw BlockError(.unsupported, "Algorithm '\(header.cipherName)' with key size \(size) bytes not supported")
        }
        algorithmKeySize = size
        try refuseMissing()
    }

    /// What a new disk is asked to have.
    package init(_ options: QCryptoBlockCreateOptionsLUKS) throws(BlockError) {
        switch options.cipherAlg ?? .aes256 {
        case .aes128: algorithmKeySize = 16
        case .aes192: algorithmKeySize = 24
        case .aes256: algorithmKeySize = 32
        case let other: throw BlockError(.unsupported, "Algorithm '\(other.rawValue)' not supported")
        }
        switch options.cipherMode ?? .xts {
        case .ecb: mode = .ecb
        case .cbc: mode = .cbc
        case .xts: mode = .xts
        case .ctr: throw BlockError(.unsupported, "Cipher mode 'ctr' not supported")
        }
        switch options.ivgenAlg ?? .plain64 {
        case .plain: vector = .plain
        case .plain64: vector = .plain64
        case .essiv: vector = .essiv(try Self.hash(options.ivgenHashAlg ?? .sha256))
        }
        try refuseMissing()
    }

    private func refuseMissing() throws(BlockError) {
        if mode == .xts, algorithmKeySize == 24 { throw BlockError(.unsupported, "Algorithm 'aes-192' not supported in mode 'xts'") }
        if case .essiv(let hash) = vector, ![16, 24, 32].contains(hash.digestSize) {
            throw BlockError(.invalidArgument, "No AES cipher with key size \(hash.digestSize) available")
        }
    }

    static func hash(named name: String) throws(BlockError) -> HashAlgorithm {
        guard let hash = HashAlgorithm(rawValue: name) else { throw BlockError(.unsupported, "Hash algorithm '\(name)' not supported") }
        return hash
    }

    static func hash(_ algorithm: QCryptoHashAlgo) throws(BlockError) -> HashAlgorithm { try hash(named: algorithm.rawValue) }

    /// As a header has it.
    var modeText: String {
        switch vector {
        case .plain: "\(mode.rawValue)-plain"
        case .plain64: "\(mode.rawValue)-plain64"
        case .essiv(let hash): "\(mode.rawValue)-essiv:\(hash.rawValue)"
        }
    }

    package func cipher(key: [UInt8]) throws(BlockError) -> DiskCipher { try DiskCipher(mode, vector, key: key) }

    // MARK: As QAPI names it

    package var algorithm: QCryptoCipherAlgo {
        switch algorithmKeySize {
        case 16: .aes128
        case 24: .aes192
        default: .aes256
        }
    }

    package var modeName: QCryptoCipherMode {
        switch mode {
        case .ecb: .ecb
        case .cbc: .cbc
        case .xts: .xts
        }
    }

    package var vectorName: QCryptoIVGenAlgo {
        switch vector {
        case .plain: .plain
        case .plain64: .plain64
        case .essiv: .essiv
        }
    }

    package var vectorHash: QCryptoHashAlgo? {
        if case .essiv(let hash) = vector { QCryptoHashAlgo(rawValue: hash.rawValue) } else { nil }
    }
}
