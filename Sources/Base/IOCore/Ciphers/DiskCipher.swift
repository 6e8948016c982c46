internal import CGnuTLS
package import StrataBase
import Synchronization

/// AES over the sectors of a disk: each sector of 512 bytes by itself, under a vector made from its number. Any thread, several at a time.
package final class DiskCipher: Sendable {
    /// Encrypted data starts at and is a multiple of this many bytes.
    package static let sectorSize = 512

    package enum Mode: String, CaseIterable, Hashable, Sendable { case ecb, cbc, xts }

    /// How a sector's number becomes its vector.
    package enum Vector: Hashable, Sendable {
        /// Its lower 32 bits.
        case plain
        case plain64
        /// Encrypted with a hash of the disk's key.
        case essiv(HashAlgorithm)
    }

    private let mode: Mode
    private let vector: Vector
    private let key: [UInt8]
    private let vectorKey: [UInt8]
    /// Ciphers of GnuTLS's, each for one thread at a time: as many as were ever in use at once.
    private let idle = Mutex<[Handle]>([])

    /// - Parameter key: 16, 24 or 32 bytes; for XTS two keys of 16 or 32.
    /// - Throws: `.unsupported` where there is no such cipher.
    package init(_ mode: Mode, _ vector: Vector, key: [UInt8]) throws(BlockError) {
        try CipherLibrary.require()
        let sizes = mode == .xts ? [32, 64] : [16, 24, 32]
        guard sizes.contains(key.count) else {
            throw BlockError(.unsupported, "There is no AES cipher in \(mode.rawValue) mode with a key of \(key.count) bytes")
        }
        self.mode = mode
        self.vector = vector
        self.key = key
        if case .essiv(let hash) = vector {
            guard [16, 24, 32].contains(hash.digestSize) else { throw BlockError(.unsupported, "No AES cipher with key size \(hash.digestSize) available") }
            vectorKey = try hash.digest(of: key)
        } else {
            vectorKey = []
        }
        let first = try makeHandle()
        idle.withLock { $0.append(first) }
    }

    @safe private final class Handle: @unchecked Sendable {  // unchecked: taken out of `idle` by one thread at a time
        let pointer: OpaquePointer
        init(_ pointer: OpaquePointer) { unsafe self.pointer = unsafe pointer }
        deinit { unsafe strata_disk_cipher_free(pointer) }
    }

    private func makeHandle() throws(BlockError) -> Handle {
        let number =
            switch mode {
            case .ecb: STRATA_MODE_ECB
            case .cbc: STRATA_MODE_CBC
            case .xts: STRATA_MODE_XTS
            }
        let vectorNumber =
            switch vector {
            case .plain: STRATA_VECTOR_PLAIN
            case .plain64: STRATA_VECTOR_PLAIN64
            case .essiv: STRATA_VECTOR_ESSIV
            }
        var made: OpaquePointer?
        // SAFETY: the keys live for the call, and have lengths that were checked.
        let result = unsafe strata_disk_cipher_new(&made, number, vectorNumber, key, key.count, vectorKey, vectorKey.count)
        guard result >= 0, let made = unsafe made else { throw BlockError(.unsupported, "Cannot make a cipher: \(TLSCredentials.text(result))") }
        return unsafe Handle(made)
    }

    private func withHandle(_ body: (Handle) -> Int32) throws(BlockError) {
        let handle: Handle
        if let free = idle.withLock({ $0.popLast() }) { handle = free } else { handle = try makeHandle() }
        let result = body(handle)
        idle.withLock { $0.append(handle) }
        guard result >= 0 else { throw BlockError(.io, "A cipher has failed: \(TLSCredentials.text(result))") }
    }

    /// Encrypts `source` into `target`, which has the same length and is one run of bytes.
    /// - Parameter position: where the data lies, in bytes; whole sectors, like the length.
    package func encrypt(_ source: IOVector, into target: IOVector, at position: Int) throws(BlockError) {
        precondition(source.byteCount == target.byteCount && target.isContiguous, "data is encrypted into as many bytes in a row")
        guard source.hasWholeSectors else {
            target.copy(from: source)
            return try encrypt(target, into: target, at: position)
        }
        try withHandle { handle in
            var result: Int32 = 0
            var done = 0
            unsafe source.forEachRun { from in
                if result < 0 { return }
                // SAFETY: the runs together are as long as the target, which is contiguous.
                unsafe target.slice(at: done, byteCount: from.count).forEachRun { to in
                    result = unsafe strata_disk_encrypt(handle.pointer, UInt64((position + done) / Self.sectorSize), from.baseAddress, to.baseAddress, from.count)
                }
                done += from.count
            }
            return result
        }
    }

    /// Decrypts data where it lies.
    /// - Parameter position: as for `encrypt`.
    package func decrypt(_ data: IOVector, at position: Int) throws(BlockError) {
        guard data.hasWholeSectors else {
            let joined = IOBuffer(byteCount: data.byteCount)
            defer { withExtendedLifetime(joined) {} }
            joined.vector.copy(from: data)
            try decrypt(joined.vector, at: position)
            return data.copy(from: joined.vector)
        }
        try withHandle { handle in
            var result: Int32 = 0
            var done = 0
            unsafe data.forEachRun { run in
                if result < 0 { return }
                result = unsafe strata_disk_decrypt(handle.pointer, UInt64((position + done) / Self.sectorSize), run.baseAddress, run.count)
                done += run.count
            }
            return result
        }
    }
}

extension DiskCipher {
    /// Longer data is left to a worker, so that the thread of a guest's requests stays free for others. Bytes; some tens of microseconds.
    package static let longestHere = 128 << 10

    /// `encrypt`, on a worker thread if it takes long.
    package func encryptAside(_ source: IOVector, into target: IOVector, at position: Int) async throws(BlockError) {
        if source.byteCount <= Self.longestHere { return try encrypt(source, into: target, at: position) }
        try await ComputeWorkers.run { Result { () throws(BlockError) in try self.encrypt(source, into: target, at: position) } }.get()
    }

    /// `decrypt`, on a worker thread if it takes long.
    package func decryptAside(_ data: IOVector, at position: Int) async throws(BlockError) {
        if data.byteCount <= Self.longestHere { return try decrypt(data, at: position) }
        try await ComputeWorkers.run { Result { () throws(BlockError) in try self.decrypt(data, at: position) } }.get()
    }
}

extension IOVector {
    /// Whether no sector is divided between runs.
    fileprivate var hasWholeSectors: Bool {
        if isContiguous { return true }
        var isWhole = true
        unsafe forEachRun { if !$0.count.isMultiple(of: DiskCipher.sectorSize) { isWhole = false } }
        return isWhole
    }
}
