package import StrataBase

/// A header whose values make sense, with everything that was read beside it. Source: docs/interop/qcow2, "Header".
///
/// Validation never looks beyond the header cluster: whether tables hold what they should is found when they are read.
package struct ValidatedHeader: Hashable, Sendable {
    package let header: QCOW2Header
    package let geometry: ClusterGeometry
    package let extensions: HeaderExtensions
    /// The name stored for the backing file; not yet a path.
    package let storedBackingName: StoredName?
    /// The same for people.
    package var backingName: String? { storedBackingName?.text }
    /// Bytes; the stored size rounded down to whole sectors, as QEMU reads it.
    package let virtualSize: Int

    /// How many bytes from the start of the file `init(decoding:)` needs at most.
    package static let maximumByteCount = 1 << 21
    /// QEMU's limit for a backing file's name.
    static let maximumBackingNameSize = 1023
    static let maximumSnapshots = 65536

    /// Whether more of the header's cluster has to be read than the bytes at its start.
    /// - Returns: the cluster's size in bytes; nil when `bytes` hold all that the cluster says, or enough to see that it is wrong.
    static func byteCount(needing bytes: RawSpan) -> Int? {
        guard let header = try? QCOW2Header(decoding: bytes), ClusterGeometry.supportedClusterBits.contains(Int(header.clusterBits)) else { return nil }
        let clusterSize = 1 << Int(header.clusterBits)
        if clusterSize <= bytes.byteCount || header.backingNameOffset > UInt64(clusterSize) { return nil }
        let backingOffset = Int(header.backingNameOffset)
        let holdsName = backingOffset + Int(header.backingNameSize) <= bytes.byteCount
        let extensionsEnd = backingOffset != 0 ? backingOffset : clusterSize
        return holdsName && HeaderExtensions.areWhole(in: bytes, from: Int(header.headerLength), to: extensionsEnd) ? nil : clusterSize
    }

    /// - Parameter bytes: the start of the file: its first cluster, or what it says (`byteCount(needing:)`), or all of a shorter file.
    /// - Throws: `.corruptImage` for values that cannot be, `.unsupported` for features that this driver refuses.
    package init(decoding bytes: RawSpan) throws(BlockError) {
        do {
            header = try QCOW2Header(decoding: bytes)
        } catch {
            if case .truncated = error { throw BlockError(.corruptImage, "qcow2 header is truncated") }
            throw BlockError(.corruptImage, "\(error)")
        }
        guard ClusterGeometry.supportedClusterBits.contains(Int(header.clusterBits)) else {
            throw BlockError(.corruptImage, "Unsupported cluster size: 2^\(header.clusterBits)")
        }
        let clusterSize = 1 << Int(header.clusterBits)
        try Self.checkHeaderLength(header, clusterSize: clusterSize)

        if header.backingNameOffset > UInt64(clusterSize) { throw BlockError(.corruptImage, "Invalid backing file offset") }
        let backingOffset = Int(header.backingNameOffset)
        let extensionsEnd = backingOffset != 0 ? backingOffset : clusterSize
        do {
            let end = min(extensionsEnd, bytes.byteCount)
            extensions = end > Int(header.headerLength)
                ? try HeaderExtensions(decoding: bytes, from: Int(header.headerLength), to: end) : HeaderExtensions()
        } catch { throw BlockError(.corruptImage, "\(error)") }

        let unknown = header.incompatible.subtracting(.known)
        guard unknown.isEmpty else {
            throw BlockError(.unsupported, "Unsupported qcow2 feature(s): \(FeatureName.describe(unknown, in: extensions.featureNames))")
        }
        guard header.refcountOrder <= 6 else {
            throw BlockError(.corruptImage, "Reference count entry width too large; may not exceed 64 bits")
        }
        let hasSubclusters = header.incompatible.contains(.extendedL2)
        guard !hasSubclusters || Int(header.clusterBits) >= ClusterGeometry.leastClusterBitsWithSubclusters else {
            throw BlockError(.corruptImage, "Unsupported cluster size for extended L2 entries: 2^\(header.clusterBits)")
        }
        geometry = ClusterGeometry(
            clusterBits: Int(header.clusterBits), refcountOrder: Int(header.refcountOrder), hasSubclusters: hasSubclusters,
            hasExternalData: header.incompatible.contains(.externalDataFile))
        virtualSize = try Self.checkTables(header, geometry)
        try Self.checkFeatures(header)
        try Self.checkEncryption(header, extensions, geometry)

        guard backingOffset != 0, header.backingNameSize != 0 else {
            storedBackingName = nil
            return
        }
        let size = Int(header.backingNameSize)
        guard size <= min(Self.maximumBackingNameSize, clusterSize - backingOffset), size <= bytes.byteCount - backingOffset else {
            throw BlockError(.corruptImage, "Backing file name too long")
        }
        let name = StoredName(decoding: bytes, at: backingOffset, length: size)
        storedBackingName = name.isEmpty ? nil : name
    }

    private static func checkHeaderLength(_ header: QCOW2Header, clusterSize: Int) throws(BlockError) {
        guard header.version >= 3 else { return }
        guard header.headerLength >= UInt32(QCOW2Header.version3Size) else { throw BlockError(.corruptImage, "qcow2 header too short") }
        guard header.headerLength <= UInt32(clusterSize) else { throw BlockError(.corruptImage, "qcow2 header exceeds cluster size") }
        guard header.headerLength.isMultiple(of: 8) else {
            throw BlockError(.corruptImage, "qcow2 header length \(header.headerLength) is not a multiple of 8")
        }
    }

    /// The limits of L1 table, refcount table and snapshot table; returns the virtual size in bytes.
    private static func checkTables(_ header: QCOW2Header, _ geometry: ClusterGeometry) throws(BlockError) -> Int {
        guard header.virtualSize <= UInt64(Int.max) else { throw BlockError(.corruptImage, "Image is too big: \(header.virtualSize) bytes") }
        let virtualSize = Int(header.virtualSize).roundedDown(to: 512)

        guard header.refcountTableClusters > 0 else {
            throw BlockError(.corruptImage, "Image does not contain a reference count table")
        }
        guard Int(header.refcountTableClusters) <= ClusterGeometry.maximumRefcountTableBytes >> geometry.clusterBits else {
            throw BlockError(.tooLarge, "Image is too large: the reference count table has \(header.refcountTableClusters) clusters")
        }
        try check(
            "Reference count table", at: header.refcountTableOffset,
            byteCount: Int(header.refcountTableClusters) << geometry.clusterBits, geometry)

        guard header.snapshotCount <= UInt32(maximumSnapshots) else { throw BlockError(.tooLarge, "Snapshot table too large") }
        if header.snapshotCount > 0 {
            // The smallest snapshot record has 40 bytes; the table is walked only where snapshots are used.
            try check("Snapshot table", at: header.snapshotTableOffset, byteCount: Int(header.snapshotCount) * 40, geometry)
        }

        guard Int(header.l1Size) <= ClusterGeometry.maximumL1Bytes / 8 else { throw BlockError(.tooLarge, "Active L1 table too large") }
        let needed = geometry.l1Entries(forVirtualSize: virtualSize)
        guard needed <= Int(Int32.max) else { throw BlockError(.tooLarge, "Image is too big") }
        guard Int(header.l1Size) >= needed else { throw BlockError(.corruptImage, "L1 table is too small") }
        if header.l1Size > 0 {
            try check("Active L1 table", at: header.l1TableOffset, byteCount: Int(header.l1Size) * 8, geometry)
        }
        return virtualSize
    }

    /// A table starts on a cluster, not in the header, and its end is a position that a file can have.
    private static func check(
        _ name: String, at offset: UInt64, byteCount: Int, _ geometry: ClusterGeometry
    ) throws(BlockError) {
        guard offset <= UInt64(Int.max), offset != 0, Int(offset).isAligned(to: geometry.clusterSize),
            !Int(offset).addingReportingOverflow(byteCount.roundedUp(to: geometry.clusterSize)).overflow
        else { throw BlockError(.corruptImage, "\(name) offset invalid: 0x\(String(offset, radix: 16))") }
    }

    private static func checkFeatures(_ header: QCOW2Header) throws(BlockError) {
        if header.incompatible.contains(.compressionType) != (header.compressionType != 0) {
            throw BlockError(
                .corruptImage,
                header.compressionType == 0
                    ? "qcow2: compression type incompatible feature bit must not be set"
                    : "qcow2: compression type incompatible feature bit must be set")
        }
        guard header.compressionType <= 1 else {
            throw BlockError(.unsupported, "qcow2: unknown compression type: \(header.compressionType)")
        }
        guard header.encryptionMethod <= 2 else {
            throw BlockError(.corruptImage, "Unsupported encryption method \(header.encryptionMethod)")
        }
    }

    /// Where key slots lie. Source: docs/interop/qcow2, "Full disk encryption header pointer".
    private static func checkEncryption(_ header: QCOW2Header, _ extensions: HeaderExtensions, _ geometry: ClusterGeometry) throws(BlockError) {
        guard let place = extensions.encryptionHeader else {
            if header.encryptionMethod == 2 { throw BlockError(.corruptImage, "Missing CRYPTO header for crypt method 2") }
            return
        }
        guard header.encryptionMethod == 2 else { throw BlockError(.corruptImage, "CRYPTO header extension only expected with LUKS encryption method") }
        guard place.offset <= UInt64(Int.max), place.offset.isMultiple(of: UInt64(geometry.clusterSize)) else {
            throw BlockError(.corruptImage, "Encryption header offset '\(place.offset)' is not a multiple of cluster size '\(geometry.clusterSize)'")
        }
        // Header and key slots of the largest keys take two megabytes.
        guard place.offset != 0, place.length <= EncryptionHeaderPlace.maximumLength, Int(place.offset) <= Int.max - Int(place.length) else {
            throw BlockError(.corruptImage, "The encryption header of \(place.length) bytes at offset \(place.offset) cannot be there")
        }
    }
}
