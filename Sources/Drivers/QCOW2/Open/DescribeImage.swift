import BlockEncryption
package import BlockGraph
import StorageSchema
package import StrataBase
import Synchronization

extension QCOW2Driver: ImageDescribing {
    package var backingName: String? { storedBacking.withLock { $0.name } }

    package func describeImage() async throws(BlockError) -> ImageDescription {
        let header = opened.header
        var description = ImageDescription()
        description.clusterSize = geometry.clusterSize
        description.isEncrypted = header.encryptionMethod != 0
        description.isDirty = header.incompatible.contains(.dirty)
        (description.backingFileName, description.backingFormat) = storedBacking.withLock { $0 }
        description.isBackingFileNameUTF8 = opened.storedBackingName?.isUTF8 ?? true
        description.snapshots = try await readSnapshots()
        let isModern = header.version >= 3
        description.specific = ImageInfoSpecific(
            .qcow2(
                ImageInfoSpecificQCow2Wrapper(
                    data: ImageInfoSpecificQCow2(
                        compat: isModern ? "1.1" : "0.10", dataFile: opened.extensions.dataFileName?.text,
                        dataFileRaw: geometry.hasExternalData ? header.autoclear.contains(.rawExternalData) : nil,
                        extendedL2: isModern ? header.incompatible.contains(.extendedL2) : nil,
                        lazyRefcounts: isModern ? header.compatible.contains(.lazyRefcounts) : nil,
                        corrupt: isModern ? header.incompatible.contains(.corrupt) || state.withLock { $0.isCorrupt } : nil,
                        refcountBits: geometry.refcountBits, encrypt: describeEncryption(), bitmaps: try await describeBitmaps(), compressionType: header.compressionType == 1 ? .zstd : .zlib))))
        return description
    }

    private func describeEncryption() -> ImageInfoSpecificQCow2Encryption? {
        if let keySlots = keySlots.withLock({ $0 }) { return ImageInfoSpecificQCow2Encryption(.luks(keySlots.description)) }
        return opened.header.encryptionMethod == 1 ? ImageInfoSpecificQCow2Encryption(.aes) : nil
    }
}
