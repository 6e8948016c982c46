package import BlockGraph
package import IOCore
package import StrataBase

// Data that lies in a node encrypted. `position` is what sectors are numbered by, in bytes; whole sectors, like all offsets and lengths here.

extension DiskCipher {
    package func tryRead(_ target: IOVector, from child: BlockChild, at host: HostOffset, position: Int) -> Bool {
        guard target.byteCount <= Self.longestHere, child.tryRead(target, at: host.asGuest) else { return false }
        do throws(BlockError) { try decrypt(target, at: position) } catch { return false }
        return true
    }

    package func read(_ target: IOVector, from child: BlockChild, at host: HostOffset, position: Int) async throws(BlockError) {
        try await child.read(target, at: host.asGuest)
        try await decryptAside(target, at: position)
    }

    /// Writes a copy that is encrypted.
    package func tryWrite(_ source: IOVector, to child: BlockChild, at host: HostOffset, position: Int) -> Bool {
        guard source.byteCount <= Self.longestHere else { return false }
        let buffer = IOBuffer(byteCount: source.byteCount)
        defer { withExtendedLifetime(buffer) {} }
        do throws(BlockError) { try encrypt(source, into: buffer.vector, at: position) } catch { return false }
        return child.tryWrite(buffer.vector, at: host.asGuest)
    }

    package func write(_ source: IOVector, to child: BlockChild, at host: HostOffset, position: Int, flags: RequestFlags = []) async throws(BlockError) {
        var done = 0
        while done < source.byteCount {
            let count = min(source.byteCount - done, Self.longestWritten)
            let buffer = IOBuffer(byteCount: count)
            defer { withExtendedLifetime(buffer) {} }
            try await encryptAside(source.slice(at: done, byteCount: count), into: buffer.vector, at: position + done)
            try await child.write(buffer.vector, at: (host + done).asGuest, flags: flags)
            done += count
        }
    }

    /// Bounds the memory of one request. Bytes.
    private static let longestWritten = 2 << 20
}
