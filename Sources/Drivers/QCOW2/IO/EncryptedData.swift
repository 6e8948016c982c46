package import BlockEncryption
import BlockGraph
import IOCore
package import StrataBase
import Synchronization

/// What an image that is encrypted was opened with. Source: docs/interop/qcow2, "Full disk encryption header pointer" and "Cluster encryption".
///
/// Clusters of data are encrypted sector by sector, compressed ones and all tables are not. What is not allocated reads as it always does.
struct ImageEncryption: Sendable {
    let cipher: DiskCipher
    /// Sectors are numbered by their place in the guest's disk, as in images of the old kind, or else by their place in the file.
    let usesGuestOffsets: Bool
    /// What a key slot was opened with.
    let password: [UInt8]

    func position(_ guest: GuestOffset, _ host: HostOffset) -> Int { usesGuestOffsets ? guest.rawValue : host.rawValue }
}

// Guest data at its place in the file, whether it is encrypted or not.

extension QCOW2Driver {
    var isEncrypted: Bool { encryption != nil }

    /// Data of images that were opened for their metadata only must not be taken for the guest's.
    private func cipherOrNone() throws(BlockError) -> ImageEncryption? {
        if encryption == nil, opened.header.encryptionMethod != 0 { throw BlockError(.accessDenied, "The image was opened without its key") }
        return encryption
    }

    func tryReadData(_ target: IOVector, at host: HostOffset, guest: GuestOffset) -> Bool {
        guard let encryption else { return opened.header.encryptionMethod == 0 && dataFile.tryRead(target, at: host.asGuest) }
        return encryption.cipher.tryRead(target, from: dataFile, at: host, position: encryption.position(guest, host))
    }

    func readData(_ target: IOVector, at host: HostOffset, guest: GuestOffset) async throws(BlockError) {
        guard let encryption = try cipherOrNone() else { return try await dataFile.read(target, at: host.asGuest) }
        try await encryption.cipher.read(target, from: dataFile, at: host, position: encryption.position(guest, host))
    }

    func tryWriteData(_ source: IOVector, at host: HostOffset, guest: GuestOffset) -> Bool {
        guard let encryption else { return opened.header.encryptionMethod == 0 && dataFile.tryWrite(source, at: host.asGuest) }
        return encryption.cipher.tryWrite(source, to: dataFile, at: host, position: encryption.position(guest, host))
    }

    func writeData(_ source: IOVector, at host: HostOffset, guest: GuestOffset) async throws(BlockError) {
        guard let encryption = try cipherOrNone() else { return try await dataFile.write(source, at: host.asGuest) }
        try await encryption.cipher.write(source, to: dataFile, at: host, position: encryption.position(guest, host))
    }
}

extension QCOW2Driver: KeySlotAmending {
    package func changeKeySlots(_ change: KeySlotChange) async throws(BlockError) {
        guard opened.header.encryptionMethod != 0 else { throw BlockError(.invalidArgument, "Can't amend encryption options - encryption not present") }
        guard let place = opened.extensions.encryptionHeader else { throw BlockError(.invalidArgument, "Only LUKS encryption options can be amended") }
        guard let encryption else { throw BlockError(.accessDenied, "The image was opened without its key") }
        try await prepareForWriting()
        await keySlotChanges.lock()
        defer { keySlotChanges.unlock() }
        guard var layout = keySlots.withLock({ $0 }) else { throw BlockError(.corruptImage, "The image has no key slots") }
        // Several slots may be erased; what is done stays done when a later one fails.
        defer { keySlots.withLock { [layout] in $0 = layout } }
        try await layout.change(change, openedWith: encryption.password, in: NodeKeyArea(file, at: HostOffset(Int(place.offset))))
    }
}
