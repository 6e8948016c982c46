import BlockEncryption
package import BlockGraph
import IOCore
package import StorageSchema
package import StrataBase
import Synchronization

extension QCOW2Driver {
    /// Makes a qcow2 image in an empty file. The header comes last: until then the file is no image, whatever happens.
    /// - Parameters:
    ///   - backend: writable and resizable; its contents are lost. `options.file` is not looked at.
    ///   - dataFile: for an image with an external data file: what shall hold the guest's data, writable and resizable. It keeps its contents, which
    ///     the guest sees where clusters are preallocated. `options.dataFile` only says whether there is one.
    ///   - dataFileName: what the image says about it; nil for an image that has to be opened with `data-file`.
    ///   - password: what opens an encrypted image: the secret that `options.encrypt` names.
    /// - Throws: `.invalidArgument` for options that do not go together, `.unsupported` for features that this driver does not have.
    package static func create(
        _ options: BlockdevCreateOptionsQcow2, in backend: BlockBackend, dataFile: BlockBackend? = nil, dataFileName: String? = nil, password: [UInt8]? = nil
    ) async throws(BlockError) {
        let plan = try CreationPlan(options, dataFileName: dataFileName)
        if options.encrypt != nil, password == nil { throw BlockError(.invalidArgument, "Parameter 'encrypt.key-secret' is required for cipher") }
        let file = backend.root
        let hasData = dataFile.map { $0.length > 0 } ?? false
        if plan.geometry.hasExternalData {
            guard let dataFile else { throw BlockError(.invalidArgument, "An image with an external data file cannot be made without the data file") }
            let size = Int(plan.header.virtualSize)
            if dataFile.length < size { try await dataFile.resize(to: size, preallocation: plan.preallocation == .metadata ? .off : plan.preallocation) }
        }
        let encryption = try await plan.write(to: file, password: password)
        guard plan.preallocation != .off, plan.header.virtualSize > 0 else { return try await file.flush() }
        let opened = try await readHeader(of: file)
        let openOptions = try QCOW2OpenOptions(BlockdevOptionsQcow2(file: options.file), discardsUnmap: false, opened.geometry, version: opened.header.version)
        let l1 = [UInt64](repeating: 0, count: Int(opened.header.l1Size))
        let driver = QCOW2Driver(
            file: file, externalData: dataFile?.root, backing: nil, opened: opened, options: openOptions, state: initialState(opened, openOptions, l1),
            encryption: encryption)
        try await driver.preallocate(from: 0, to: driver.length, plan.preallocation, showsData: hasData)
        try await driver.close()
    }
}

/// Where everything lies in a new image, and its header: header, refcount table, refcount blocks, L1 table, key slots, each on clusters of its own.
struct CreationPlan {
    let geometry: ClusterGeometry
    private(set) var header: QCOW2Header
    let extensions: HeaderExtensions
    let backingName: String?
    let preallocation: PreallocMode
    private let tableClusters: Int
    private let blocks: Int
    private let usedClusters: Int
    private let encryption: QCryptoBlockCreateOptions?
    /// What key slots take. Bytes.
    var keySlotBytes: Int { Int(extensions.encryptionHeader?.length ?? 0) }

    init(_ options: BlockdevCreateOptionsQcow2, dataFileName: String? = nil) throws(BlockError) {
        let version: UInt32 = options.version == .v2 ? 2 : 3
        let clusterSize = options.clusterSize ?? 65536
        guard clusterSize.isPowerOfTwo, ClusterGeometry.supportedClusterBits.contains(clusterSize.trailingZeroBitCount) else {
            throw BlockError(.invalidArgument, "Cluster size must be a power of two between 512 and 2048k")
        }
        let refcountBits = options.refcountBits ?? 16
        guard refcountBits.isPowerOfTwo, refcountBits <= 64 else {
            throw BlockError(.invalidArgument, "Refcount width must be a power of two and may not exceed 64 bits")
        }
        if version < 3, refcountBits != 16 {
            throw BlockError(
                .invalidArgument, "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)")
        }
        if version < 3, options.lazyRefcounts == true {
            throw BlockError(
                .invalidArgument, "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)")
        }
        if version < 3, options.compressionType == .zstd {
            throw BlockError(
                .invalidArgument, "Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 or greater)")
        }
        guard options.size >= 0, options.size.isAligned(to: 512) else {
            throw BlockError(.invalidArgument, "Image size must be a multiple of 512 bytes")
        }
        let hasSubclusters = options.extendedL2 == true
        let hasExternalData = options.dataFile != nil
        if version < 3, hasExternalData {
            throw BlockError(
                .invalidArgument, "External data files are only supported with compatibility level 1.1 and above (use version=v3 or greater)")
        }
        if version < 3, hasSubclusters {
            throw BlockError(
                .invalidArgument, "Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or greater)")
        }
        let leastClusterSize = 1 << ClusterGeometry.leastClusterBitsWithSubclusters
        if hasSubclusters, clusterSize < leastClusterSize {
            throw BlockError(.invalidArgument, "Extended L2 entries are only supported with cluster sizes of at least \(leastClusterSize) bytes")
        }
        if options.dataFileRaw == true {
            if !hasExternalData { throw BlockError(.invalidArgument, "data-file-raw requires data-file") }
            if options.backingFile != nil { throw BlockError(.invalidArgument, "Backing file and data-file-raw cannot be used at the same time") }
        }
        geometry = ClusterGeometry(
            clusterBits: clusterSize.trailingZeroBitCount, refcountOrder: refcountBits.trailingZeroBitCount, hasSubclusters: hasSubclusters,
            hasExternalData: hasExternalData)
        guard options.size <= geometry.maximumVirtualSize else {
            throw BlockError(.tooLarge, "The image size is too large for file format 'qcow2' (try using a larger cluster size)")
        }
        let wanted = options.preallocation ?? .off
        if wanted != .off, options.backingFile != nil, !hasSubclusters {
            throw BlockError(.invalidArgument, "Backing file and preallocation can only be used at the same time if extended_l2 is on")
        }
        // Whoever writes to a raw data file by itself must find his data through the image as well.
        preallocation = wanted == .off && options.dataFileRaw == true ? .metadata : wanted

        encryption = options.encrypt
        let keySlotBytes = try Self.keySlotBytes(options)
        // The refcounts count their own blocks and table: a few rounds reach the fixed point.
        let l1Entries = geometry.l1Entries(forVirtualSize: options.size)
        // A disk of no bytes has no table: a cluster that is counted and that nothing names would be lost when the disk grows.
        let l1Clusters = geometry.clusters(l1Entries * 8)
        var table = 1
        var blocks = 1
        while true {
            let used = 1 + table + blocks + l1Clusters + geometry.clusters(keySlotBytes)
            let neededBlocks = used.dividedRoundingUp(by: geometry.refcountsPerBlock)
            let neededTable = max(1, geometry.clusters(neededBlocks * 8))
            if neededBlocks <= blocks, neededTable <= table { break }
            blocks = max(blocks, neededBlocks)
            table = max(table, neededTable)
        }
        tableClusters = table
        self.blocks = blocks
        usedClusters = 1 + table + blocks + l1Clusters + geometry.clusters(keySlotBytes)

        var header = QCOW2Header(
            version: version, clusterBits: UInt32(geometry.clusterBits), virtualSize: UInt64(options.size),
            refcountOrder: UInt32(geometry.refcountOrder))
        header.refcountTableOffset = UInt64(clusterSize)
        header.refcountTableClusters = UInt32(table)
        header.l1Size = UInt32(l1Entries)
        header.l1TableOffset = UInt64((1 + table + blocks) * clusterSize)
        if options.lazyRefcounts == true { header.compatible = .lazyRefcounts }
        if options.compressionType == .zstd {
            header.compressionType = 1
            header.incompatible.insert(.compressionType)
        }
        if hasSubclusters { header.incompatible.insert(.extendedL2) }
        if hasExternalData { header.incompatible.insert(.externalDataFile) }
        if options.dataFileRaw == true { header.autoclear = .rawExternalData }

        var extensions = HeaderExtensions()
        if options.backingFile != nil { extensions.backingFormat = options.backingFmt?.rawValue }
        if hasExternalData { extensions.dataFileName = dataFileName.map(StoredName.init) }
        if let encryption { header.encryptionMethod = encryption.format == .luks ? 2 : 1 }
        if keySlotBytes > 0 {
            extensions.encryptionHeader = EncryptionHeaderPlace(offset: UInt64((1 + table + blocks + l1Clusters) * clusterSize), length: UInt64(keySlotBytes))
        }
        if version >= 3 { extensions.featureNames = FeatureName.standardTable }
        let nameSize = options.backingFile?.utf8.count ?? 0
        // The names of features are for people. They go where they would leave no room for them or, later, for bitmaps.
        if header.encodedSize + extensions.encoded().count + 8 + BitmapsExtension.encodedSize + nameSize > clusterSize { extensions.featureNames = [] }
        if let name = options.backingFile {
            let offset = header.encodedSize + extensions.encoded().count
            guard name.utf8.count <= min(ValidatedHeader.maximumBackingNameSize, clusterSize - offset) else {
                throw BlockError(.invalidArgument, "Backing file name too long: \(name.utf8.count) bytes")
            }
            header.backingNameOffset = UInt64(offset)
            header.backingNameSize = UInt32(name.utf8.count)
        }
        backingName = options.backingFile
        self.extensions = extensions
        self.header = header
    }

    /// What key slots take; nothing in an image that has none. Bytes.
    private static func keySlotBytes(_ options: BlockdevCreateOptionsQcow2) throws(BlockError) -> Int {
        guard let encryption = options.encrypt else { return 0 }
        if options.dataFileRaw == true { throw BlockError(.invalidArgument, "data-file-raw and encryption cannot be used at the same time") }
        guard case .luks(let options) = encryption.branch else { return 0 }
        if options.keySecret == nil { throw BlockError(.invalidArgument, "Parameter 'encrypt.key-secret' is required for cipher") }
        try options.check()
        return try options.headerSize()
    }

    /// - Parameter password: of an encrypted image.
    /// - Returns: what the new image is encrypted with.
    func write(to file: BlockChild, password: [UInt8]?) async throws(BlockError) -> ImageEncryption? {
        let clusterSize = geometry.clusterSize
        let keySlots = extensions.encryptionHeader
        let l1End = keySlots.map { Int($0.offset + $0.length) } ?? Int(header.l1TableOffset) + Int(header.l1Size) * 8
        if file.length == 0 {
            // A file that grows reads as zeroes: that is the L1 table.
            try await file.resize(to: max(l1End, Int(header.l1TableOffset)))
        } else {
            try await file.writeZeroes(GuestRange(GuestOffset(0), byteCount: min(max(l1End, clusterSize), max(file.length, l1End))))
        }
        for number in 0..<blocks {
            var block = RefcountBlock(emptyFor: geometry)
            let first = number * geometry.refcountsPerBlock
            for cluster in first..<max(first, min(first + geometry.refcountsPerBlock, usedClusters)) { block[cluster - first] = 1 }
            try await write(block.bytes, at: (1 + tableClusters + number) * clusterSize, to: file)
        }
        var table = [UInt8](repeating: 0, count: tableClusters * clusterSize)
        for number in 0..<blocks { table.setBigEndian(UInt64((1 + tableClusters + number) * clusterSize), at: number * 8) }
        try await write(table, at: clusterSize, to: file)
        let encryption = try await makeKeys(in: file, password: password ?? [])
        try await file.flush()
        var first = header.encoded() + extensions.encoded() + Array((backingName ?? "").utf8)
        first += [UInt8](repeating: 0, count: clusterSize - first.count)
        try await write(first, at: 0, to: file)
        return encryption
    }

    private func makeKeys(in file: BlockChild, password: [UInt8]) async throws(BlockError) -> ImageEncryption? {
        switch encryption?.branch {
        case nil: return nil
        case .qcow: return try .old(password: password)
        case .luks(let options):
            let area = NodeKeyArea(file, at: HostOffset(Int(extensions.encryptionHeader?.offset ?? 0)))
            let (layout, key) = try await LUKSLayout.format(area, options, password: password)
            return ImageEncryption(cipher: try layout.cipher.cipher(key: key), usesGuestOffsets: false, password: password)
        }
    }

    private func write(_ bytes: [UInt8], at offset: Int, to file: BlockChild) async throws(BlockError) {
        let buffer = IOBuffer(copying: bytes)
        try await file.write(buffer.vector, at: GuestOffset(offset))
    }
}
