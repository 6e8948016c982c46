package import BlockGraph
import IOCore
package import StorageSchema
package import StrataBase
import Synchronization

/// VMware's images (`driver=vmdk`) that are one sparse file: monolithicSparse and streamOptimized. For reading only.
///
/// A grain directory leads to grain tables, and these to grains of 64 KiB in most images. Those of a streamOptimized image are compressed.
package final class VMDKDriver: MappedStatus {
    package static let formatName = "vmdk"
    package static let supportsBacking = true

    let file: BlockChild
    let tables: MetadataCache
    private let header: VMDKHeader
    private let descriptor: VMDKDescriptor
    private let directoryOffset: Int
    package var length: Int { header.diskSize }

    /// The grain that was expanded last, so that small sequential reads expand it once. Its bytes do not change any more.
    private struct ExpandedGrain {
        let place: HostOffset
        let buffer: IOBuffer
        /// How much of the grain the stream held. Bytes.
        let byteCount: Int
    }

    private let lastExpanded = Mutex<ExpandedGrain?>(nil)

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .vmdk(let own) = options.branch else { throw BlockError(.invalidArgument, "options of another driver were given to 'vmdk'") }
        switch own.backing {
        case nil, .null?, .reference("")?: break
        case .definition?, .reference?: throw BlockError(.unsupported, "Backing files of VMDK images are not supported")
        }
        let file = try await BlockChild.imageFile(own.file, opener)
        let start = try await file.bytes(at: 0, byteCount: VMDKHeader.byteCount)
        try await refuseOtherKinds(start, file)
        let header = try start.withBytes { bytes throws(BlockError) in try VMDKHeader(decoding: bytes) }
        let descriptor = try await readDescriptor(header, file)
        try descriptor.requireSupported()
        let directorySector = header.directorySector == VMDKHeader.directoryAtEnd ? try await footer(of: file, matching: header).directorySector : header.directorySector
        let (directoryOffset, overflow) = directorySector.multipliedReportingOverflow(by: 512)
        guard !overflow, file.holds(directoryOffset, byteCount: UInt64(header.tableCount * 4)) else {
            throw BlockError(.corruptImage, "The grain directory at sector \(directorySector) with \(header.tableCount) entries ends beyond the end of the file: the image was cut off")
        }
        return VMDKDriver(file, header, descriptor, directoryOffset: Int(directoryOffset))
    }

    private init(_ file: BlockChild, _ header: VMDKHeader, _ descriptor: VMDKDescriptor, directoryOffset: Int) {
        self.file = file
        self.header = header
        self.descriptor = descriptor
        self.directoryOffset = directoryOffset
        tables = MetadataCache(file)
    }

    /// - Throws: for images that are a descriptor with the data in other files, and those of old ESX servers.
    private static func refuseOtherKinds(_ start: IOBuffer, _ file: BlockChild) async throws(BlockError) {
        let first = start.copyToArray()
        if first.starts(with: "COWD".utf8) { throw BlockError(.unsupported, "VMDK images of ESX servers ('COWD', vmfsSparse) are not supported") }
        guard first.starts(with: VMDKDescriptor.firstLine) else { return }
        let text = try await file.bytes(at: 0, byteCount: min(file.length, 64 << 10)).copyToArray()
        let descriptor = try VMDKDescriptor(parsing: Array(text.prefix { $0 != 0 }))
        try descriptor.requireSupported()
        throw BlockError(.unsupported, "VMDK descriptors with the data in other files are not supported")
    }

    private static func readDescriptor(_ header: VMDKHeader, _ file: BlockChild) async throws(BlockError) -> VMDKDescriptor {
        guard header.descriptorSector != 0 else {
            throw BlockError(.unsupported, "The VMDK file has no descriptor: it is one extent of an image of several files, which are not supported")
        }
        guard header.descriptorSectors <= UInt64(VMDKHeader.maximumDescriptorSize / 512) else {
            throw BlockError(.tooLarge, "The VMDK descriptor has \(header.descriptorSectors) sectors")
        }
        let byteCount = header.descriptorSectors * 512
        let (offset, overflow) = header.descriptorSector.multipliedReportingOverflow(by: 512)
        guard !overflow, file.holds(offset, byteCount: byteCount) else {
            throw BlockError(.corruptImage, "The VMDK descriptor at sector \(header.descriptorSector) ends beyond the end of the file")
        }
        let text = try await file.bytes(at: Int(offset), byteCount: Int(byteCount)).copyToArray()
        return try VMDKDescriptor(parsing: Array(text.prefix { $0 != 0 }))
    }

    /// The footer of a stream, which the directory's place is in: a marker, a copy of the header, and a marker for the end, a sector each.
    private static func footer(of file: BlockChild, matching header: VMDKHeader) async throws(BlockError) -> VMDKHeader {
        guard file.length >= 4 * 512, file.length.isMultiple(of: 512) else { throw BlockError(.corruptImage, "Invalid footer") }
        let end = try await file.bytes(at: file.length - 3 * 512, byteCount: 3 * 512)
        let (isMarked, copy) = try end.withBytes { bytes throws(BlockError) in
            let marker = VMDKMarker(decoding: bytes.extracting(0..<512))
            let last = VMDKMarker(decoding: bytes.extracting(1024..<1536))
            return (marker.isFooter && last.isEnd, try VMDKHeader(decoding: bytes.extracting(512..<1024)))
        }
        guard isMarked, copy.directorySector != VMDKHeader.directoryAtEnd, copy.diskSize == header.diskSize, copy.grainSize == header.grainSize,
            copy.grainsPerTable == header.grainsPerTable, copy.isCompressed == header.isCompressed
        else { throw BlockError(.corruptImage, "Invalid footer") }
        return copy
    }

    // MARK: Mapping

    func run(at offset: GuestOffset, limit: Int) throws(MappingObstacle) -> MappedRun {
        let (table, insideTable) = offset.rawValue.quotientAndRemainder(dividingBy: header.tableSpan)
        let tableSector = try tables.littleEndian(at: directoryOffset + 4 * table, as: UInt32.self)
        if tableSector == 0 { return MappedRun(byteCount: min(limit, header.tableSpan - insideTable), place: .unallocated) }
        guard file.holds(UInt64(tableSector) * 512, byteCount: UInt64(header.grainsPerTable * 4)) else {
            throw .damage(BlockError(.corruptImage, "vmdk: grain table \(table) at sector \(tableSector) ends beyond the end of node '\(file.node.name)'"))
        }
        let (grain, insideGrain) = insideTable.quotientAndRemainder(dividingBy: header.grainSize)
        let byteCount = min(limit, header.grainSize - insideGrain)
        let sector = try tables.littleEndian(at: Int(tableSector) * 512 + 4 * grain, as: UInt32.self)
        switch sector {
        case 0: return MappedRun(byteCount: byteCount, place: .unallocated)
        case 1 where header.hasZeroedGrains: return MappedRun(byteCount: byteCount, place: .zero)
        default:
            let start = HostOffset(Int(sector) * 512)
            return MappedRun(byteCount: byteCount, place: header.isCompressed ? .compressed(start) : .data(start + insideGrain))
        }
    }

    // MARK: Compressed grains

    func tryReadCompressed(_ target: IOVector, at offset: GuestOffset, in place: HostOffset) -> Bool {
        let grain = lastExpanded.withLock { $0?.place == place ? $0 : nil }
        let start = offset.rawValue % header.grainSize
        guard let grain, start + target.byteCount <= grain.byteCount else { return false }
        target.copy(from: grain.buffer.vector(at: start, byteCount: target.byteCount))
        withExtendedLifetime(grain.buffer) {}
        return true
    }

    func readCompressed(_ target: IOVector, at offset: GuestOffset, in place: HostOffset) async throws(BlockError) {
        if tryReadCompressed(target, at: offset, in: place) { return }
        let grain: ExpandedGrain
        do { grain = try await expand(place) } catch { throw error.during("reading guest offset \(offset)") }
        let start = offset.rawValue % header.grainSize
        guard start + target.byteCount <= grain.byteCount else {
            throw BlockError(.corruptImage, "vmdk: the compressed grain at \(place) holds \(grain.byteCount) bytes, too few for guest offset \(offset)")
        }
        target.copy(from: grain.buffer.vector(at: start, byteCount: target.byteCount))
        withExtendedLifetime(grain.buffer) {}
        lastExpanded.withLock { $0 = grain }
    }

    /// A grain begins with a marker of 12 bytes: the sector of the disk that it is for, and how long the stream behind the marker is.
    private func expand(_ place: HostOffset) async throws(BlockError) -> ExpandedGrain {
        let marker = try await file.bytes(at: place.rawValue, byteCount: VMDKMarker.grainHeaderSize)
        let streamSize = marker.withBytes { $0.checkedLittleEndian(at: 8, as: UInt32.self) }
        // What does not get shorter by compression gets a little longer.
        guard streamSize > 0, streamSize <= header.grainSize * 2 else {
            throw BlockError(.corruptImage, "vmdk: the compressed grain at \(place) claims a length of \(streamSize) bytes")
        }
        let streamOffset = place.rawValue + VMDKMarker.grainHeaderSize
        guard file.holds(UInt64(streamOffset), byteCount: UInt64(streamSize)) else {
            throw BlockError(.corruptImage, "vmdk: the compressed grain at \(place) ends beyond the end of node '\(file.node.name)'")
        }
        let stream = try await file.bytes(at: streamOffset, byteCount: Int(streamSize))
        let output = IOBuffer(byteCount: header.grainSize)
        return ExpandedGrain(place: place, buffer: output, byteCount: try ZlibStream.expand(stream, into: output))
    }

    // MARK: Describing

    package func describeImage() async throws(BlockError) -> ImageDescription {
        var description = ImageDescription()
        description.clusterSize = header.grainSize
        var names = NodeDescriptions()
        let extent = VmdkExtentInfo(
            filename: names.filename(of: file.node), format: "", virtualSize: header.diskSize, clusterSize: header.grainSize,
            compressed: header.isCompressed ? true : nil)
        description.specific = ImageInfoSpecific(
            .vmdk(
                ImageInfoSpecificVmdkWrapper(
                    data: ImageInfoSpecificVmdk(
                        createType: descriptor.createType ?? "", cid: Int(descriptor.contentID ?? 0), parentCid: Int(descriptor.parentContentID), extents: [extent]))))
        return description
    }
}

/// A marker in a stream: a number of sectors, a size, and, where the size is 0, a type. Source: Virtual Disk Format 5.0, "Stream-Optimized Compressed".
struct VMDKMarker: Hashable {
    /// The marker of a grain ends where the type of other markers would be.
    static let grainHeaderSize = 12

    private let sectors: UInt64
    private let size: UInt32
    private let type: UInt32

    /// - Parameter bytes: at least 16 of them.
    init(decoding bytes: RawSpan) {
        sectors = bytes.checkedLittleEndian(at: 0)
        size = bytes.checkedLittleEndian(at: 8)
        type = bytes.checkedLittleEndian(at: 12)
    }

    var isFooter: Bool { sectors == 1 && size == 0 && type == 3 }
    var isEnd: Bool { sectors == 0 && size == 0 && type == 0 }
}
