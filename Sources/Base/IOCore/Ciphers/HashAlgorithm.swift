internal import CGnuTLS
package import StrataBase

/// The hashes that disks' keys are made with, by the names that they have in headers.
package enum HashAlgorithm: String, CaseIterable, Hashable, Sendable {
    case md5, sha1, sha224, sha256, sha384, sha512, ripemd160

    /// Bytes.
    package var digestSize: Int {
        switch self {
        case .md5: 16
        case .sha1, .ripemd160: 20
        case .sha224: 28
        case .sha256: 32
        case .sha384: 48
        case .sha512: 64
        }
    }

    private var number: strata_hash {
        switch self {
        case .md5: STRATA_MD5
        case .sha1: STRATA_SHA1
        case .sha224: STRATA_SHA224
        case .sha256: STRATA_SHA256
        case .sha384: STRATA_SHA384
        case .sha512: STRATA_SHA512
        case .ripemd160: STRATA_RIPEMD160
        }
    }

    /// - Throws: `.unsupported` where GnuTLS is missing or does not have the hash.
    package func digest(of bytes: [UInt8]) throws(BlockError) -> [UInt8] {
        try CipherLibrary.require()
        var digest = [UInt8](repeating: 0, count: digestSize)
        // SAFETY: the arrays live for the call; the digest has the hash's length.
        let result = unsafe digest.withUnsafeMutableBytes { unsafe strata_hash_bytes(number, bytes, bytes.count, $0.baseAddress) }
        try check(result)
        return digest
    }

    /// A key made from a password by PBKDF2 with this hash's HMAC (RFC 8018, 5.2). Costly: call it on a thread that may be kept.
    /// - Throws: `.unsupported` as for `digest`.
    package func deriveKey(from password: [UInt8], salt: [UInt8], iterations: UInt32, byteCount: Int) throws(BlockError) -> [UInt8] {
        try CipherLibrary.require()
        var key = [UInt8](repeating: 0, count: byteCount)
        // SAFETY: as above.
        let result = unsafe key.withUnsafeMutableBytes {
            unsafe strata_pbkdf2(number, password, password.count, salt, salt.count, iterations, $0.baseAddress, $0.count)
        }
        try check(result)
        return key
    }

    /// How many iterations of `deriveKey` take a second of a processor. Takes some tens of milliseconds to find out.
    package func iterationsPerSecond(keySize: Int) throws(BlockError) -> Int {
        try CipherLibrary.require()
        let speed = strata_pbkdf2_speed(number, keySize)
        if speed <= 0 { try check(Int32(truncatingIfNeeded: min(speed, -1))) }
        return Int(speed)
    }

    private func check(_ result: Int32) throws(BlockError) {
        guard result >= 0 else { throw BlockError(.unsupported, "Hash algorithm '\(rawValue)' is not available: \(TLSCredentials.text(result))") }
    }
}

/// What all uses of ciphers need.
package enum CipherLibrary {
    static func require() throws(BlockError) {
        if let reason = unsafe strata_tls_unavailable() { throw BlockError(.unsupported, "Ciphers are not available: \(unsafe String(cString: reason))") }
    }

    /// Bytes that nobody can guess.
    package static func randomBytes(_ count: Int) throws(BlockError) -> [UInt8] {
        try require()
        var bytes = [UInt8](repeating: 0, count: count)
        // SAFETY: the array lives for the call.
        let result = unsafe bytes.withUnsafeMutableBytes { unsafe strata_random_key($0.baseAddress, $0.count) }
        guard result >= 0 else { throw BlockError(.io, "No random numbers are to be had: \(TLSCredentials.text(result))") }
        return bytes
    }
}
