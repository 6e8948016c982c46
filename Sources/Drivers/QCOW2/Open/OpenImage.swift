package import BlockGraph
import IOCore
package import StorageSchema
package import StrataBase

extension QCOW2Driver {
    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .qcow2(let options) = options.branch else { throw BlockError(.invalidArgument, "the options are not those of a qcow2 node") }
        let file = try await opener.openChild(options.file, as: "file", role: [.data, .metadata, .primary])
        let header = try await readHeader(of: file)
        try refuseDamaged(header, opener)
        let openOptions = try QCOW2OpenOptions(options, discardsUnmap: opener.options.discardsUnmap, header.geometry, version: header.header.version)
        let externalData = try await openDataFile(options, header, opener, file)
        let backing = try await openBacking(options, header, opener, file)
        let keySlots = try await readKeySlots(of: file, header)
        let encryption = opener.opensChain ? try await unlock(options, header, keySlots, file, opener.objects) : nil
        let l1 = try await readL1(of: file, header)
        let state = initialState(header, openOptions, l1)
        let driver = QCOW2Driver(
            file: file, externalData: externalData, backing: backing, opened: header, options: openOptions, state: state, encryption: encryption, keySlots: keySlots)
        driver.scheduleCacheCleaning()
        let (events, name) = (opener.events, opener.nodeName)
        driver.announceCorruption = { contradiction, isFatal in
            events.send(
                BlockImageCorruptedEvent(
                    device: "", nodeName: name.hasPrefix("#") || name.isEmpty ? nil : name, msg: contradiction.message,
                    offset: contradiction.offset?.rawValue, fatal: isFatal))
        }
        if opener.opensChain, opener.options.isActive { try await driver.loadBitmaps() }
        return driver
    }

    /// What is known of an image before anything but its header and L1 table was read.
    static func initialState(_ header: ValidatedHeader, _ options: QCOW2OpenOptions, _ l1: [UInt64]) -> ImageState {
        var state = ImageState(
            geometry: header.geometry, version: header.header.version, virtualSize: header.virtualSize, l1: l1,
            l1Offset: HostOffset(Int(header.header.l1TableOffset)),
            l2: options.emptyL2Cache(forVirtualSize: header.virtualSize, header.geometry),
            refcounts: RefcountState(
                geometry: header.geometry, table: [], tableOffset: HostOffset(Int(header.header.refcountTableOffset)),
                tableClusters: Int(header.header.refcountTableClusters), cache: RefcountCache(capacity: options.refcountSlots(header.geometry)),
                virginFrom: 0, fileLength: 0, highestEnd: 0),
            snapshotCount: Int(header.header.snapshotCount), snapshotTableOffset: HostOffset(Int(clamping: header.header.snapshotTableOffset)))
        options.apply(to: &state)
        return state
    }

    /// Reads and judges the header of the image in `file`.
    package static func readHeader(of file: BlockChild) async throws(BlockError) -> ValidatedHeader {
        // Nearly always a page has all that there is; if not, it says how long the header's cluster is.
        let start = IOBuffer(byteCount: min(file.length, 4096))
        try await file.read(start.vector, at: GuestOffset(0))
        let missing = start.withBytes { ValidatedHeader.byteCount(needing: $0) }
        guard let missing, file.length > start.byteCount else {
            return try start.withBytes { bytes throws(BlockError) in try ValidatedHeader(decoding: bytes) }
        }
        let cluster = IOBuffer(byteCount: min(file.length, missing))
        try await file.read(cluster.vector, at: GuestOffset(0))
        return try cluster.withBytes { bytes throws(BlockError) in try ValidatedHeader(decoding: bytes) }
    }

    private static func refuseDamaged(_ header: ValidatedHeader, _ opener: NodeOpener) throws(BlockError) {
        if opener.options.isReadOnly || !opener.opensChain || !opener.options.isActive { return }
        try header.refuseWriting()
    }

    /// The file for guest data. Where only metadata is wanted it stays closed: an image from a stranger may name any file.
    private static func openDataFile(
        _ options: BlockdevOptionsQcow2, _ header: ValidatedHeader, _ opener: NodeOpener, _ file: BlockChild
    ) async throws(BlockError) -> BlockChild? {
        guard header.geometry.hasExternalData else {
            if options.dataFile != nil { throw BlockError(.invalidArgument, "'data-file' can only be set for images with an external data file") }
            if opener.opensChain { try header.refuseUnclearData(isDataFileGiven: false) }
            return nil
        }
        guard opener.opensChain else { return nil }
        if let reference = options.dataFile { return try await opener.openChild(reference, as: "data-file", role: .data) }
        try header.refuseUnclearData(isDataFileGiven: false)
        guard let name = try header.extensions.dataFileName?.filename(ofThe: "data file", in: file.node.filename ?? file.node.name) else { return nil }
        return try await opener.openImplicitDataFile(name, imageFilename: file.node.filename)
    }

    private static func openBacking(
        _ options: BlockdevOptionsQcow2, _ header: ValidatedHeader, _ opener: NodeOpener, _ file: BlockChild
    ) async throws(BlockError) -> BlockChild? {
        guard opener.opensChain else { return nil }
        switch options.backing {
        case .definition(let definition): return try await opener.openChild(.definition(definition), as: "backing", role: .copyOnWrite)
        case .reference(let name) where !name.isEmpty:
            return try await opener.openChild(.reference(name), as: "backing", role: .copyOnWrite)
        case .reference, .null: return nil
        case nil:
            guard let name = try header.storedBackingName?.filename(ofThe: "backing file", in: file.node.filename ?? file.node.name) else { return nil }
            return try await opener.openImplicitBacking(file: name, format: header.extensions.backingFormat, imageFilename: file.node.filename)
        }
    }

    static func readL1(of file: BlockChild, _ header: ValidatedHeader) async throws(BlockError) -> [UInt64] {
        let count = Int(header.header.l1Size)
        if count == 0 { return [] }
        // In pieces, and as far as it lies in the file: an image may claim the largest table that there is.
        let inside = max(0, min(count, (file.length - Int(header.header.l1TableOffset)).dividedRoundingUp(by: 8)))
        let buffer = IOBuffer(byteCount: min(count * 8, 1 << 20))
        defer { withExtendedLifetime(buffer) {} }
        var words: [UInt64] = []
        words.reserveCapacity(count)
        while words.count < inside {
            let piece = min(inside - words.count, buffer.byteCount / 8)
            let place = GuestOffset(Int(header.header.l1TableOffset) + words.count * 8)
            do { try await file.read(buffer.vector(at: 0, byteCount: piece * 8), at: place) } catch { throw error.during("Could not read L1 table") }
            words += buffer.bigEndianWords(piece)
        }
        words += repeatElement(0, count: count - words.count)
        return words
    }
}

extension IOBuffer {
    /// The first `count` 64-bit numbers of a table.
    /// - Precondition: the buffer holds as many.
    func bigEndianWords(_ count: Int) -> [UInt64] {
        withBytes { bytes in
            var words: [UInt64] = []
            words.reserveCapacity(count)
            for index in 0..<count { words.append(bytes.checkedBigEndian(at: index * 8)) }
            return words
        }
    }
}

extension ValidatedHeader {
    /// - Throws: why the image must not be written to as it is.
    func refuseWriting() throws(BlockError) {
        if header.incompatible.contains(.corrupt) {
            throw BlockError(.accessDenied, "qcow2: Image is corrupt; cannot be opened read/write")
        }
    }

    /// What the header says about where guest data lies has to go together. One wrong bit, and clusters with data in them would pass for lost ones.
    /// - Throws: why the image may be described, but not be used or checked.
    func refuseUnclearData(isDataFileGiven: Bool) throws(BlockError) {
        guard geometry.hasExternalData else {
            if header.autoclear.contains(.rawExternalData) { throw BlockError(.invalidArgument, "data-file-raw requires a data file") }
            return
        }
        if isDataFileGiven { return }
        guard let name = extensions.dataFileName, !name.isEmpty else { throw BlockError(.invalidArgument, "'data-file' is required for this image") }
    }
}
