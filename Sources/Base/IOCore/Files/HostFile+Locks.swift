internal import CStrataLinux
import Glibc
package import StrataBase

// Image locks, byte for byte those of QEMU: a process that uses a permission on an image holds a shared lock on one byte, one that does not
// share a permission holds a shared lock on another, and each asks whether the opposite byte of its neighbours is locked.
// Observed on qemu-img and qemu-storage-daemon 10.0.2 with /proc/locks: permission bit n uses byte 100+n, its refusal byte 200+n.

extension HostFile {
    private static let usedBase: Int64 = 100
    private static let unsharedBase: Int64 = 200

    /// Takes the bytes in `held` that are not in `previous`, after asking whether others object; releases nothing.
    /// - Parameters:
    ///   - used: a bit mask over permission bits 0 to 3. `unshared` likewise: the permissions not shared with others.
    ///   - required: whether a file system that has no such locks is an error.
    /// - Throws: `.locked`, naming the permission and the holder if he can be found. Locks that were taken on the way are released again.
    package func acquireLocks(
        used: UInt8, unshared: UInt8, previouslyUsed: UInt8, previouslyUnshared: UInt8, required: Bool = false
    ) throws(BlockError) {
        do throws(BlockError) {
            try copyLocks(used: used & ~previouslyUsed, unshared: unshared & ~previouslyUnshared, required: required)
            // Ask after taking: two processes that come together then see each other, and at least one gives way.
            try ask(used, base: Self.unsharedBase, kind: "")
            try ask(unshared, base: Self.usedBase, kind: "shared ")
        } catch {
            releaseLocks(used: used & ~previouslyUsed, unshared: unshared & ~previouslyUnshared)
            throw error
        }
    }

    /// Takes bytes without asking whether others object: for another descriptor of a file whose locks this process holds already. All locks are
    /// shared ones, so that both descriptors hold them for a moment and no other process ever finds them free.
    package func copyLocks(used: UInt8, unshared: UInt8, required: Bool = false) throws(BlockError) {
        try take(used, base: Self.usedBase, required)
        try take(unshared, base: Self.unsharedBase, required)
    }

    /// Releases the bytes of the given permissions.
    package func releaseLocks(used: UInt8, unshared: UInt8) {
        for bit in 0..<8 as Range<Int64> {
            if used & (1 << bit) != 0 { _ = strata_unlock_bytes(descriptor, Self.usedBase + bit, 1) }
            if unshared & (1 << bit) != 0 { _ = strata_unlock_bytes(descriptor, Self.unsharedBase + bit, 1) }
        }
    }

    private func take(_ mask: UInt8, base: Int64, _ required: Bool) throws(BlockError) {
        for bit in 0..<8 as Range<Int64> where mask & (1 << bit) != 0 {
            let result = strata_lock_bytes(descriptor, base + bit, 1, 0)
            if result == -EAGAIN || result == -EACCES { throw lockConflict(bit, base + bit, kind: base == Self.usedBase ? "" : "shared ") }
            // A file system without locks (some network and FUSE ones) cannot protect anybody.
            let cannot = result == -ENOLCK || result == -EOPNOTSUPP || result == -EINVAL
            if result < 0, required || !cannot { throw failure(result, "locking") }
        }
    }

    private func ask(_ mask: UInt8, base: Int64, kind: String) throws(BlockError) {
        for bit in 0..<8 as Range<Int64> where mask & (1 << bit) != 0 {
            var holder: Int32 = 0
            if unsafe strata_test_lock(descriptor, base + bit, 1, 1, &holder) == 1 { throw lockConflict(bit, base + bit, kind: kind) }
        }
    }

    /// The first words are QEMU's: scripts wait for them.
    private func lockConflict(_ bit: Int64, _ byte: Int64, kind: String) -> BlockError {
        let names = ["consistent read", "write", "write unchanged", "resize"]
        let name = bit < names.count ? names[Int(bit)] : "bit \(bit)"
        let holder = LockHolder.find(of: self, byte: Int(byte)).map { ": '\(path)' is locked by \($0)" } ?? ""
        return BlockError(.locked, "Failed to get \(kind)\"\(name)\" lock\(holder)", hint: "Is another process using the image [\(path)]?")
    }
}
