package import BlockGraph
import IOCore
package import StorageSchema
package import StrataBase

/// Hyper-V's images (`driver=vhdx`), fixed and dynamic, whose log is empty. For reading only.
///
/// As in QEMU, such a node does not tell which of its blocks are allocated.
package final class VHDXDriver: MappedImage {
    package static let formatName = "vhdx"
    /// "vhdxfile"
    private static let signature: UInt64 = 0x656c_6966_7864_6876

    /// What the lowest three bits of an entry say about its block.
    private enum State {
        /// Never written, undefined, zero, unmapped: all read as zeroes here.
        static let absent: ClosedRange<UInt64> = 0...3
        static let present: UInt64 = 6
        static let partlyPresent: UInt64 = 7
    }

    let file: BlockChild
    let tables: MetadataCache
    let geometry: VHDXGeometry
    /// Of the block allocation table, 64 bits for each entry. Bytes.
    private let tableOffset: Int
    package var length: Int { geometry.diskSize }

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .vhdx(let own) = options.branch else { throw BlockError(.invalidArgument, "options of another driver were given to 'vhdx'") }
        let file = try await BlockChild.imageFile(own.file, opener)
        guard try await file.bytes(at: 0, byteCount: 8).withBytes({ $0.checkedLittleEndian(at: 0, as: UInt64.self) }) == signature else {
            throw BlockError(.invalidArgument, "Image not in VHDX format")
        }
        let header = try await currentHeader(of: file)
        guard header.version == 1 else { throw BlockError(.unsupported, "VHDX images of version \(header.version) are not supported") }
        guard header.logIdentifier == .none else {
            throw BlockError(
                .unsupported, "The log of the VHDX image is not empty: it has to be replayed, which is not supported",
                hint: "Opening the image for writing with the program that made it, or 'qemu-img check -r all', replays the log.")
        }
        let regions = try await regions(of: file, header)
        let geometry = try await geometry(of: file, regions.metadata)
        let tableSize = UInt64(geometry.entryCount * 8)
        guard tableSize <= regions.blockTable.length, file.holds(regions.blockTable.offset, byteCount: tableSize) else {
            throw BlockError(.corruptImage, "The VHDX image's block allocation table has no room for \(geometry.entryCount) entries, or the image was cut off")
        }
        return VHDXDriver(file, geometry, tableOffset: Int(regions.blockTable.offset))
    }

    private init(_ file: BlockChild, _ geometry: VHDXGeometry, tableOffset: Int) {
        self.file = file
        self.geometry = geometry
        self.tableOffset = tableOffset
        tables = MetadataCache(file)
    }

    private static func currentHeader(of file: BlockChild) async throws(BlockError) -> VHDXHeader {
        var current: VHDXHeader?
        for place in VHDXHeader.places {
            guard let header = try await file.bytes(at: place, byteCount: VHDXHeader.byteCount).withBytes({ VHDXHeader(decoding: $0) }) else { continue }
            if header.sequenceNumber >= current?.sequenceNumber ?? 0 { current = header }
        }
        guard let current else { throw BlockError(.corruptImage, "No valid VHDX header found") }
        return current
    }

    private static func regions(of file: BlockChild, _ header: VHDXHeader) async throws(BlockError) -> VHDXRegionTable {
        for place in VHDXRegionTable.places {
            let table = try await file.bytes(at: place, byteCount: VHDXRegionTable.byteCount)
            guard table.withBytes({ VHDXRegionTable.isValid($0) }) else { continue }
            return try table.withBytes { bytes throws(BlockError) in try VHDXRegionTable(decoding: bytes, beside: header) }
        }
        throw BlockError(.corruptImage, "No valid VHDX region table found")
    }

    private static func geometry(of file: BlockChild, _ region: VHDXRegionTable.Region) async throws(BlockError) -> VHDXGeometry {
        let start = Int(region.offset)
        let metadata = try await file.bytes(at: start, byteCount: VHDXMetadata.tableSize).withBytes { bytes throws(BlockError) in
            try VHDXMetadata(decoding: bytes, length: Int(region.length))
        }
        func number<I: FixedWidthInteger & BitwiseCopyable & Sendable>(_ identifier: VHDXIdentifier, _ name: String, at offset: Int = 0, of byteCount: Int) async throws(BlockError) -> I {
            let item = try metadata.item(identifier, name, byteCount: byteCount)
            return try await file.bytes(at: start + item.offset, byteCount: byteCount).withBytes { $0.checkedLittleEndian(at: offset) }
        }
        return try VHDXGeometry(
            blockSize: await number(.fileParameters, "file parameters", of: 8), flags: await number(.fileParameters, "file parameters", at: 4, of: 8),
            diskSize: await number(.diskSize, "disk size", of: 8), sectorSize: await number(.logicalSectorSize, "logical sector size", of: 4))
    }

    func run(at offset: GuestOffset, limit: Int) throws(MappingObstacle) -> MappedRun {
        let (block, inside) = offset.rawValue.quotientAndRemainder(dividingBy: geometry.blockSize)
        let byteCount = min(limit, geometry.blockSize - inside)
        let entry = try tables.littleEndian(at: tableOffset + 8 * geometry.entry(of: block), as: UInt64.self)
        switch entry & 7 {
        case State.absent: return MappedRun(byteCount: byteCount, place: .unallocated)
        case State.present:
            // The last block of a fixed image need not be there as a whole.
            let start = entry & ~0xf_ffff
            guard start >= 1 << 20, start <= UInt64(Int.max) / 2 else {
                throw .damage(BlockError(.corruptImage, "vhdx: block \(block) lies at offset \(start) of node '\(file.node.name)'"))
            }
            return MappedRun(byteCount: byteCount, place: .data(HostOffset(Int(start) + inside)))
        case State.partlyPresent: throw .damage(BlockError(.corruptImage, "vhdx: block \(block) is there in part, though the image has no parent"))
        default: throw .damage(BlockError(.corruptImage, "vhdx: block \(block) has the unknown state \(entry & 7)"))
        }
    }

    package func describeImage() async throws(BlockError) -> ImageDescription {
        var description = ImageDescription()
        description.clusterSize = geometry.blockSize
        return description
    }
}
