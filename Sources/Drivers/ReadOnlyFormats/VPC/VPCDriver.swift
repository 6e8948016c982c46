package import BlockGraph
import IOCore
package import StorageSchema
package import StrataBase

/// VHD images (`driver=vpc`, for Virtual PC, which they come from), fixed and dynamic. For reading only.
package final class VPCDriver: MappedStatus {
    package static let formatName = "vpc"

    /// Where the blocks of a dynamic image are.
    private struct BlockTable {
        let offset: Int
        let header: VHDDynamicHeader
    }

    let file: BlockChild
    let tables: MetadataCache
    private let footer: VHDFooter
    /// Nil for a fixed image.
    private let table: BlockTable?
    package var length: Int { footer.diskSize }
    var hasHolesInData: Bool { table == nil }

    /// An entry for a block that was never written.
    private static let unused = UInt32.max
    /// So many entries are looked at when an image is opened, to find out whether it was cut off: all that an image with blocks of the usual size,
    /// 2 MiB, can have.
    private static let entriesLookedAt = 1 << 20

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .vpc(let own) = options.branch else { throw BlockError(.invalidArgument, "options of another driver were given to 'vpc'") }
        let file = try await BlockChild.imageFile(own.file, opener)
        let footer = try await readFooter(of: file)
        if footer.type == .fixed { return VPCDriver(file, footer, nil) }
        guard file.holds(footer.dataOffset, byteCount: UInt64(VHDDynamicHeader.byteCount)) else {
            throw BlockError(.corruptImage, "The dynamic disk header at offset \(footer.dataOffset) ends beyond the end of the file")
        }
        let header = try await file.bytes(at: Int(footer.dataOffset), byteCount: VHDDynamicHeader.byteCount).withBytes { bytes throws(BlockError) in
            try VHDDynamicHeader(decoding: bytes, diskSize: footer.diskSize)
        }
        guard file.holds(header.tableOffset, byteCount: UInt64(header.entryCount * 4)) else {
            throw BlockError(
                .corruptImage,
                "The block allocation table at offset \(header.tableOffset) with \(header.entryCount) entries ends beyond the end of the file: the image was cut off")
        }
        let driver = VPCDriver(file, footer, BlockTable(offset: Int(header.tableOffset), header: header))
        try await driver.refuseCutOff()
        return driver
    }

    /// The footer is at the start of every image that is not fixed.
    private static func readFooter(of file: BlockChild) async throws(BlockError) -> VHDFooter {
        let start = try await file.bytes(at: 0, byteCount: VHDFooter.byteCount)
        if start.withBytes({ VHDFooter.isThere(in: $0) }) { return try start.withBytes { bytes throws(BlockError) in try VHDFooter(decoding: bytes) } }
        guard file.length >= VHDFooter.byteCount else { throw BlockError(.invalidArgument, "invalid VPC image") }
        let end = try await file.bytes(at: (file.length - VHDFooter.byteCount).roundedUp(to: 512), byteCount: VHDFooter.byteCount)
        let footer = try end.withBytes { bytes throws(BlockError) in try VHDFooter(decoding: bytes) }
        guard footer.type == .fixed else { throw BlockError(.corruptImage, "The copy of the footer at the start of a dynamic VHD image is missing") }
        return footer
    }

    private init(_ file: BlockChild, _ footer: VHDFooter, _ table: BlockTable?) {
        self.file = file
        self.footer = footer
        self.table = table
        tables = MetadataCache(file)
    }

    /// - Throws: when a block lies beyond the end of the file.
    private func refuseCutOff() async throws(BlockError) {
        guard let table else { return }
        let header = table.header
        let usedEntries = min(footer.diskSize.dividedRoundingUp(by: header.blockSize), Self.entriesLookedAt)
        let perPiece = MetadataCache.pageSize / 4
        for start in stride(from: 0, to: usedEntries, by: perPiece) {
            let count = min(perPiece, usedEntries - start)
            let piece = try await file.bytes(at: table.offset + 4 * start, byteCount: 4 * count)
            let last = piece.withBytes { bytes in
                var last: UInt32?
                for index in 0..<count {
                    let entry: UInt32 = bytes.checkedBigEndian(at: 4 * index)
                    if entry != Self.unused, entry > last ?? 0 || last == nil { last = entry }
                }
                return last
            }
            guard let last else { continue }
            let end = Int(last) * 512 + header.bitmapSize + header.blockSize
            guard end <= file.length else {
                throw BlockError(.corruptImage, "A block ends at offset \(end), beyond the end of the file. The image has been truncated.")
            }
        }
    }

    func run(at offset: GuestOffset, limit: Int) throws(MappingObstacle) -> MappedRun {
        guard let table else { return MappedRun(byteCount: limit, place: .data(offset.asHost)) }
        let (block, inside) = offset.rawValue.quotientAndRemainder(dividingBy: table.header.blockSize)
        let entry = try tables.bigEndian(at: table.offset + 4 * block, as: UInt32.self)
        let place: MappedPlace = entry == Self.unused ? .unallocated : .data(HostOffset(Int(entry) * 512 + table.header.bitmapSize + inside))
        return MappedRun(byteCount: min(limit, table.header.blockSize - inside), place: place)
    }

    package func describeImage() async throws(BlockError) -> ImageDescription {
        var description = ImageDescription()
        description.clusterSize = table?.header.blockSize
        return description
    }
}
