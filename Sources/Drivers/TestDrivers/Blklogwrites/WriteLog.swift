import BlockGraph
import IOCore
import StrataBase

/// A log of writes in a node: where its end is and what its superblock has still to learn. The driver calls it from one task at a time.
struct WriteLog {
    private let node: BlockChild
    /// Bytes.
    let sectorSize: Int
    private var entryCount: UInt64
    /// Where the next entry goes, in sectors.
    private var nextSector: UInt64
    /// After how many entries the superblock is written although nobody flushes.
    var updateInterval: UInt64
    private var entriesInSuperblock: UInt64

    /// A log from its beginning. What the node holds stays until the first entry is written.
    init(newIn node: BlockChild, sectorSize: UInt32, updateInterval: UInt64) throws(BlockError) {
        try WriteLogSectors.check(sectorSize: sectorSize)
        self.node = node
        self.sectorSize = Int(sectorSize)
        self.updateInterval = updateInterval
        entryCount = 0
        entriesInSuperblock = 0
        nextSector = 1
    }

    /// The end of a log that is there already.
    /// - Throws: `.corruptImage` for what is none, or one whose entries go beyond the node's end.
    init(appendingTo node: BlockChild, updateInterval: UInt64) async throws(BlockError) {
        let start = IOBuffer(zeroed: 512)
        defer { withExtendedLifetime(start) {} }
        try await node.read(start.vector, at: GuestOffset(0))
        let superblock = try start.withBytes { bytes throws(BlockError) in try WriteLogSuperblock(decoding: bytes) }
        self.node = node
        sectorSize = Int(superblock.sectorSize)
        self.updateInterval = updateInterval
        entryCount = superblock.entryCount
        entriesInSuperblock = superblock.entryCount
        nextSector = 1
        // Every entry takes a sector, so that a node's length bounds the walk whatever the superblock says.
        let sectorsInNode = UInt64(node.length / sectorSize)
        let buffer = IOBuffer(byteCount: WriteLogEntry.encodedSize)
        defer { withExtendedLifetime(buffer) {} }
        for number in 0..<superblock.entryCount {
            let isInside = nextSector < sectorsInNode
            guard isInside else { throw BlockError(.corruptImage, "Entry \(number) of the log lies beyond the end of node '\(node.node.name)'") }
            try await node.read(buffer.vector, at: GuestOffset(Int(nextSector) * sectorSize))
            let entry = buffer.withBytes { WriteLogEntry(decoding: $0) }
            let (end, overflow) = (nextSector + 1).addingReportingOverflow(entry.dataSectors)
            guard !overflow, end <= sectorsInNode else {
                throw BlockError(.corruptImage, "The data of entry \(number) of the log lies beyond the end of node '\(node.node.name)'")
            }
            nextSector = end
        }
    }

    /// Writes an entry with its data behind the last one. When that fails the log ends where it did.
    /// - Parameter data: whole sectors; nil for an entry that has none.
    mutating func append(_ entry: WriteLogEntry, data: IOVector?) async throws(BlockError) {
        let (end, overflow) = (nextSector + 1).addingReportingOverflow(entry.dataSectors)
        guard !overflow, end <= UInt64(Int.max / sectorSize) else { throw BlockError(.tooLarge, "The log in node '\(node.node.name)' cannot grow any further") }
        let head = IOBuffer(zeroed: sectorSize)
        head.withMutableBytes { entry.encode(into: &$0) }
        let position = GuestOffset(Int(nextSector) * sectorSize)
        do {
            if let data {
                let joined = VectorList([head.vector, data])
                defer { withExtendedLifetime(joined) {} }
                try await node.write(joined.vector, at: position)
            } else if entry.dataSectors > 0 {
                try await node.write(head.vector, at: position)
                try await node.writeZeroes(GuestRange(position + sectorSize, byteCount: Int(entry.dataSectors) * sectorSize))
            } else {
                try await node.write(head.vector, at: position)
            }
        } catch { throw error.during("Writing the log") }
        withExtendedLifetime(head) {}
        nextSector = end
        entryCount += 1
        if entryCount - entriesInSuperblock >= updateInterval { try await writeSuperblock() }
    }

    /// Lets the superblock know of every entry, and makes it durable with them.
    mutating func writeSuperblock() async throws(BlockError) {
        let sector = IOBuffer(zeroed: sectorSize)
        defer { withExtendedLifetime(sector) {} }
        sector.withMutableBytes { WriteLogSuperblock(entryCount: entryCount, sectorSize: UInt32(sectorSize)).encode(into: &$0) }
        do {
            // First what the superblock is going to count, then the superblock.
            try await node.flush()
            try await node.write(sector.vector, at: GuestOffset(0))
            try await node.flush()
        } catch { throw error.during("Writing the superblock of the log") }
        entriesInSuperblock = entryCount
    }
}
