package import BlockGraph
import IOCore
package import StorageSchema
package import StrataBase
import Synchronization

extension QCOW2Driver {
    /// Makes a qcow2 image in an empty file. The header comes last: until then the file is no image, whatever happens.
    /// - Parameter backend: writable and resizable; its contents are lost. `options.file` is not looked at.
    /// - Throws: `.invalidArgument` for options that do not go together, `.unsupported` for features that this driver does not have.
    package static func create(_ options: BlockdevCreateOptionsQcow2, in backend: BlockBackend) async throws(BlockError) {
        let plan = try CreationPlan(options)
        let file = backend.root
        try await plan.write(to: file)
        guard plan.preallocation != .off, plan.header.virtualSize > 0 else { return try await file.flush() }
        let opened = try await readHeader(of: file)
        let openOptions = try QCOW2OpenOptions(BlockdevOptionsQcow2(file: options.file), discardsUnmap: false, opened.geometry)
        let l1 = [UInt64](repeating: 0, count: Int(opened.header.l1Size))
        let driver = QCOW2Driver(file: file, backing: nil, opened: opened, options: openOptions, state: initialState(opened, openOptions, l1))
        try await driver.preallocate(plan.preallocation)
        try await driver.close()
    }

    /// Gives every guest cluster a host cluster.
    private func preallocate(_ mode: PreallocMode) async throws(BlockError) {
        try await prepareForWriting()
        let zeroes = mode == .full ? IOBuffer(zeroed: 1 << 20) : nil
        var position = 0
        var end = 0
        while position < length {
            let guest = GuestOffset(position)
            let left = (length - position).roundedUp(to: geometry.clusterSize)
            let plan = try await step { state throws(Obstacle) in try state.planWrite(at: guest, byteCount: left, inFlight) }
            guard case .reserved(let reservation) = plan else { break }
            let byteCount = reservation.clusterCount << geometry.clusterBits
            do {
                if mode == .falloc { try await file.writeZeroes(GuestRange(reservation.host.asGuest, byteCount: byteCount)) }
                if let zeroes {
                    var done = 0
                    while done < byteCount {
                        let count = min(zeroes.byteCount, byteCount - done)
                        try await file.write(zeroes.vector(at: 0, byteCount: count), at: (reservation.host + done).asGuest)
                        done += count
                    }
                }
                _ = try await step { state throws(Obstacle) in try state.publish(reservation) }
                inFlight.leave(reservation.ticket)
            } catch {
                _ = state.withLock { $0.cancel(reservation) }
                inFlight.leave(reservation.ticket)
                throw error.during("preallocating the image")
            }
            position += byteCount
            end = max(end, reservation.host.rawValue + byteCount)
        }
        if file.length < end { try await file.resize(to: end) }
    }
}

/// Where everything lies in a new image, and its header: header, refcount table, refcount blocks, L1 table, each on clusters of its own.
struct CreationPlan {
    let geometry: ClusterGeometry
    private(set) var header: QCOW2Header
    let extensions: HeaderExtensions
    let backingName: String?
    let preallocation: PreallocMode
    private let tableClusters: Int
    private let blocks: Int
    private let usedClusters: Int

    init(_ options: BlockdevCreateOptionsQcow2) throws(BlockError) {
        try Self.refuseUnsupported(options)
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
        geometry = ClusterGeometry(clusterBits: clusterSize.trailingZeroBitCount, refcountOrder: refcountBits.trailingZeroBitCount)
        guard options.size <= geometry.maximumVirtualSize else {
            throw BlockError(.tooLarge, "The image size is too large for file format 'qcow2' (try using a larger cluster size)")
        }
        preallocation = options.preallocation ?? .off
        if preallocation != .off, options.backingFile != nil {
            throw BlockError(.invalidArgument, "Backing file and preallocation can only be used at the same time if extended_l2 is enabled")
        }

        // The refcounts count their own blocks and table: a few rounds reach the fixed point.
        let l1Entries = geometry.l1Entries(forVirtualSize: options.size)
        let l1Clusters = max(1, geometry.clusters(l1Entries * 8))
        var table = 1
        var blocks = 1
        while true {
            let used = 1 + table + blocks + l1Clusters
            let neededBlocks = used.dividedRoundingUp(by: geometry.refcountsPerBlock)
            let neededTable = max(1, geometry.clusters(neededBlocks * 8))
            if neededBlocks <= blocks, neededTable <= table { break }
            blocks = max(blocks, neededBlocks)
            table = max(table, neededTable)
        }
        tableClusters = table
        self.blocks = blocks
        usedClusters = 1 + table + blocks + l1Clusters

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

        var extensions = HeaderExtensions()
        if options.backingFile != nil { extensions.backingFormat = options.backingFmt?.rawValue }
        if version >= 3 { extensions.featureNames = FeatureName.standardTable }
        let nameSize = options.backingFile?.utf8.count ?? 0
        if header.encodedSize + extensions.encoded().count + nameSize > clusterSize { extensions.featureNames = [] }
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

    private static func refuseUnsupported(_ options: BlockdevCreateOptionsQcow2) throws(BlockError) {
        if options.extendedL2 == true { throw BlockError(.unsupported, "Extended L2 entries are not supported") }
        if options.dataFile != nil || options.dataFileRaw == true { throw BlockError(.unsupported, "External data files are not supported") }
    }

    func write(to file: BlockChild) async throws(BlockError) {
        let clusterSize = geometry.clusterSize
        let l1End = Int(header.l1TableOffset) + Int(header.l1Size) * 8
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
        try await file.flush()
        var first = header.encoded() + extensions.encoded() + Array((backingName ?? "").utf8)
        first += [UInt8](repeating: 0, count: clusterSize - first.count)
        try await write(first, at: 0, to: file)
    }

    private func write(_ bytes: [UInt8], at offset: Int, to file: BlockChild) async throws(BlockError) {
        let buffer = IOBuffer(copying: bytes)
        try await file.write(buffer.vector, at: GuestOffset(offset))
    }
}
