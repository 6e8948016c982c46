package import BlockGraph
import IOCore
package import StorageSchema
package import StrataBase

/// VirtualBox's images (`driver=vdi`), dynamic and static: blocks of 1 MiB, and a map that says which block of the file each is in. For reading only.
package final class VDIDriver: MappedStatus {
    package static let formatName = "vdi"

    let file: BlockChild
    let tables: MetadataCache
    let header: VDIHeader
    package var length: Int { header.diskSize }
    var hasHolesInData: Bool { header.isStatic }

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .vdi(let own) = options.branch else { throw BlockError(.invalidArgument, "options of another driver were given to 'vdi'") }
        let file = try await BlockChild.imageFile(own.file, opener)
        let header = try await file.bytes(at: 0, byteCount: VDIHeader.byteCount).withBytes { bytes throws(BlockError) in try VDIHeader(decoding: bytes) }
        guard file.holds(UInt64(header.mapOffset), byteCount: UInt64(header.blockCount * 4)) else {
            throw BlockError(
                .corruptImage, "The block map at offset \(header.mapOffset) with \(header.blockCount) entries ends beyond the end of the file: the image was cut off")
        }
        return VDIDriver(file, header)
    }

    private init(_ file: BlockChild, _ header: VDIHeader) {
        self.file = file
        self.header = header
        tables = MetadataCache(file)
    }

    /// The block of the file that holds a block of the disk; nil where there are zeroes.
    func entry(_ block: Int) throws(MappingObstacle) -> UInt32? {
        let entry = try tables.littleEndian(at: header.mapOffset + 4 * block, as: UInt32.self)
        // The largest number: never written. The one below: discarded.
        return entry >= UInt32.max - 1 ? nil : entry
    }

    func run(at offset: GuestOffset, limit: Int) throws(MappingObstacle) -> MappedRun {
        let (block, inside) = offset.rawValue.quotientAndRemainder(dividingBy: VDIHeader.blockSize)
        let byteCount = min(limit, VDIHeader.blockSize - inside)
        guard let entry = try entry(block) else { return MappedRun(byteCount: byteCount, place: .unallocated) }
        return MappedRun(byteCount: byteCount, place: .data(HostOffset(header.dataOffset + Int(entry) * VDIHeader.blockSize + inside)))
    }

    package func describeImage() async throws(BlockError) -> ImageDescription {
        var description = ImageDescription()
        description.clusterSize = VDIHeader.blockSize
        return description
    }
}
