internal import CGnuTLS
package import StrataBase

/// Ciphers for short secrets; disks have their own.
package enum BlockCipher {
    /// Deciphers AES-256 in CBC mode and takes the padding (PKCS #7) off.
    /// - Parameters:
    ///   - bytes: whole blocks of 16 bytes, at least one.
    ///   - key: 32 bytes.
    ///   - vector: 16 bytes.
    /// - Throws: `.invalidArgument` when a length is wrong or the end is no padding, which a wrong key makes likely; `.unsupported` without GnuTLS.
    package static func decryptAES256CBC(_ bytes: [UInt8], key: [UInt8], vector: [UInt8]) throws(BlockError) -> [UInt8] {
        if let reason = unsafe strata_tls_unavailable() { throw BlockError(.unsupported, "Ciphers are not available: \(unsafe String(cString: reason))") }
        guard key.count == 32 else { throw BlockError(.invalidArgument, "Key should be 32 bytes long, not \(key.count)") }
        guard vector.count == 16 else { throw BlockError(.invalidArgument, "IV should be 16 bytes long, not \(vector.count)") }
        guard !bytes.isEmpty, bytes.count.isMultiple(of: 16) else { throw BlockError(.invalidArgument, "Encrypted data of \(bytes.count) bytes is not made of blocks of 16") }
        var plain = bytes
        // SAFETY: the arrays live for the call and have the lengths that were checked.
        let result = unsafe plain.withUnsafeMutableBytes { unsafe strata_aes_decrypt(key, vector, $0.baseAddress, $0.count) }
        guard result >= 0 else { throw BlockError(.invalidArgument, "Cannot decipher: \(TLSCredentials.text(result))") }
        let padding = Int(plain.last ?? 0)
        guard padding >= 1, padding <= 16, plain.suffix(padding).allSatisfy({ $0 == UInt8(padding) }) else {
            throw BlockError(.invalidArgument, "Incorrect number of padding bytes (\(padding)) found on decrypted data")
        }
        plain.removeLast(padding)
        return plain
    }
}
