import Foundation

/// A reader and checker of qcow2 images that shares no code with the driver: version 3, refcounts of 8 bits and more, zlib, with subclusters of a sector or
/// without. Fast, because crash proofs ask it millions of times.
package struct IndependentCheck {
    package struct Snapshot: Equatable {
        package var id: String
        package var sectors: [Int32]
    }

    /// A persistent bitmap that is in force.
    package struct Bitmap: Equatable {
        package var name: String
        /// The mark of a bitmap that lacks writes.
        package var isInUse: Bool
        package var granularity: Int
        /// One for each bit that the tables have room for.
        package var isDirty: [Bool]
    }

    package struct Problem: Error, CustomStringConvertible { package let description: String }

    package let contents: SectorContents
    package let disk: [Int32]
    /// What is below, sector by sector; zeroes behind its end.
    private let backing: [Int32]
    /// Sectors in a cluster.
    private var unit = 1
    private var hasSubclusters = false
    private var references: [UInt16]
    private var refcountBlocks: [Int] = []
    private var refcountOrder = 4
    private var hasExactRefcounts = true

    /// What the guest sees. Sectors of the virtual disk.
    package private(set) var guest: [Int32] = []
    package private(set) var snapshots: [Snapshot] = []
    package private(set) var bitmaps: [Bitmap] = []

    private static let offsetMask: UInt64 = 0x00ff_ffff_ffff_fe00

    /// - Throws: what is wrong with the image; leaks are not.
    package init(_ disk: [Int32], _ contents: SectorContents, over backing: [Int32] = []) throws {
        self.disk = disk
        self.contents = contents
        self.backing = backing
        references = [UInt16](repeating: 0, count: disk.count)
        try check()
    }

    /// A sector of a table.
    private func words(_ sector: Int) throws -> [UInt64] {
        guard disk.indices.contains(sector) else { throw Problem(description: "a table lies behind the end of the file, in sector \(sector)") }
        return contents.words(disk[sector])
    }

    /// A word of a table that begins with a cluster.
    private func word(_ cluster: Int, _ index: Int) throws -> UInt64 { try words(cluster * unit + index / 64)[index % 64] }

    private mutating func count(_ cluster: Int, _ what: @autoclosure () -> String) throws {
        guard disk.indices.contains(cluster * unit) else { throw Problem(description: "\(what()) behind the end of the file: cluster \(cluster)") }
        references[cluster] += 1
    }

    private func refcount(_ cluster: Int) throws -> UInt64 {
        let bits = 1 << refcountOrder, inWord = 64 / bits, inBlock = unit * 512 * 8 / bits
        let index = cluster / inBlock
        guard refcountBlocks.indices.contains(index), refcountBlocks[index] != 0 else { return 0 }
        let word = try word(refcountBlocks[index], cluster % inBlock / inWord)
        return (word << UInt64(bits * (cluster % inWord))) >> UInt64(64 - bits)
    }

    private mutating func check() throws {
        let header = try words(0)
        guard header[0] == 0x5146_49fb_0000_0003 else { throw Problem(description: "no header") }
        guard header[9] & 2 == 0 else { throw Problem(description: "marked corrupt") }
        // Whoever opens a dirty image counts anew before he believes refcounts or copied flags.
        hasExactRefcounts = header[9] & 1 == 0
        hasSubclusters = header[9] >> 4 & 1 == 1
        let clusterBits = Int(header[2] & 0xffff_ffff)
        guard clusterBits >= 9, clusterBits <= 16, !hasSubclusters || clusterBits == 14 else { throw Problem(description: "clusters of 2^\(clusterBits) bytes") }
        unit = 1 << (clusterBits - 9)
        refcountOrder = Int(header[12] >> 32)
        guard (3...6).contains(refcountOrder) else { throw Problem(description: "refcounts of \(1 << refcountOrder) bits") }
        try count(0, "header")
        let size = Int(header[3]) / 512
        let l1Size = Int(header[4] & 0xffff_ffff), l1 = cluster(header[5])
        let table = cluster(header[6]), tableClusters = Int(header[7] >> 32)
        let snapshotCount = Int(header[7] & 0xffff_ffff), snapshotTable = cluster(header[8])
        for cluster in 0..<tableClusters {
            try count(table + cluster, "refcount table")
            for sector in 0..<unit { for entry in try words((table + cluster) * unit + sector) { refcountBlocks.append(self.cluster(entry)) } }
        }
        // Behind the last block there is nothing, and looking for it costs.
        while refcountBlocks.last == 0 { refcountBlocks.removeLast() }
        for block in refcountBlocks where block != 0 { try count(block, "refcount block") }
        guest = try walk(l1, l1Size, size, isActive: true)
        try readSnapshots(snapshotTable, snapshotCount, size)
        // An extension without its autoclear bit is somebody's who knew nothing of bitmaps.
        if header[11] & 1 == 1 { try readBitmaps(headerLength: Int(header[12] & 0xffff_ffff)) }
        for cluster in references.indices where references[cluster] > 0 && hasExactRefcounts {
            let stored = try refcount(cluster)
            if stored < UInt64(references[cluster]) { throw Problem(description: "cluster \(cluster) has \(references[cluster]) references and refcount \(stored)") }
        }
    }

    /// The cluster that an offset in a table names.
    private func cluster(_ entry: UInt64) -> Int { Int(entry & Self.offsetMask) / 512 / unit }

    private mutating func walk(_ table: Int, _ entries: Int, _ size: Int, isActive: Bool) throws -> [Int32] {
        var seen = (0..<size).map { $0 < backing.count ? backing[$0] : 0 }
        let wordsPerEntry = hasSubclusters ? 2 : 1
        let perTable = unit * 64 / wordsPerEntry
        for index in 0..<entries {
            if index % (64 * unit) == 0 { try count(table + index / (64 * unit), "L1 table") }
            let entry = try word(table, index)
            let l2 = cluster(entry)
            if l2 == 0 { continue }
            try count(l2, "L2 table")
            if isActive, hasExactRefcounts, (try refcount(l2) == 1) != (entry >> 63 == 1) { throw Problem(description: "L1 entry \(index): copied flag and refcount \(try refcount(l2))") }
            for part in 0..<unit {
                let words = try words(l2 * unit + part)
                for position in stride(from: 0, to: 64, by: wordsPerEntry) where words[position] != 0 || (hasSubclusters && words[position + 1] != 0) {
                    let guest = index * perTable + (part * 64 + position) / wordsPerEntry
                    try look(words[position], hasSubclusters ? words[position + 1] : nil, guest, &seen, isActive: isActive)
                }
            }
        }
        return seen
    }

    /// What a guest sees of one cluster.
    /// - Parameter subclusters: the second word of an extended entry: the upper half says which read as zeroes, the lower one which are there.
    private mutating func look(_ bits: UInt64, _ subclusters: UInt64?, _ guest: Int, _ seen: inout [Int32], isActive: Bool) throws {
        func set(_ sector: Int, _ content: Int32) { if guest * unit + sector < seen.count { seen[guest * unit + sector] = content } }
        if bits >> 62 & 1 == 1 {
            if bits >> 63 == 1 { throw Problem(description: "cluster \(guest): compressed with a copied flag") }
            if (subclusters ?? 0) != 0 { throw Problem(description: "cluster \(guest): compressed with subclusters") }
            let stream = try compressed(bits)
            // A stream that is broken is content like any other: whether it may be is for the model to say.
            let expanded = contents.expand(stream, to: unit)
            for sector in 0..<unit { set(sector, expanded?[sector] ?? -1) }
            return
        }
        let host = cluster(bits)
        if host != 0 {
            try count(host, "data")
            if isActive, hasExactRefcounts, (try refcount(host) == 1) != (bits >> 63 == 1) { throw Problem(description: "cluster \(guest): copied flag and refcount \(try refcount(host))") }
        }
        func content(_ sector: Int) throws -> Int32 {
            // A file may end inside its last cluster.
            host * unit + sector < disk.count ? disk[host * unit + sector] : 0
        }
        for sector in 0..<unit {
            if let subclusters {
                let (isThere, isZero) = (subclusters >> UInt64(sector) & 1 == 1, subclusters >> UInt64(32 + sector) & 1 == 1)
                if isThere, isZero || host == 0 { throw Problem(description: "cluster \(guest): subcluster \(sector) is nonsense") }
                if isZero { set(sector, 0) } else if isThere { set(sector, try content(sector)) }
            } else if bits & 1 == 1 {
                set(sector, 0)
            } else if host != 0 {
                set(sector, try content(sector))
            }
        }
    }

    /// The stream that an entry names, in whole sectors.
    private mutating func compressed(_ bits: UInt64) throws -> [UInt8] {
        let offsetBits = UInt64(62 - (unit.trailingZeroBitCount + 1))
        let offset = Int(bits & (1 << offsetBits - 1))
        let byteCount = (Int((bits & (1 << 62 - 1)) >> offsetBits) + 1) * 512 - offset % 512
        for cluster in offset / 512 / unit...(offset + byteCount - 1) / 512 / unit { try count(cluster, "compressed data") }
        var stream: [UInt8] = []
        for sector in offset / 512...(offset + byteCount - 1) / 512 where sector < disk.count { stream += contents.bytes[Int(disk[sector])] }
        return Array(stream.dropFirst(offset % 512).prefix(byteCount))
    }

    private mutating func readSnapshots(_ table: Int, _ count: Int, _ size: Int) throws {
        if count == 0 { return }
        var bytes: [UInt8] = []
        func number(_ offset: Int, _ length: Int) throws -> Int {
            while bytes.count < offset + length {
                guard disk.indices.contains(table * unit + bytes.count / 512) else { throw Problem(description: "the snapshot table is cut off") }
                bytes += contents.bytes[Int(disk[table * unit + bytes.count / 512])]
            }
            return bytes[offset..<offset + length].reduce(0) { $0 << 8 | Int($1) }
        }
        var position = 0
        for _ in 0..<count {
            let (offset, entries) = (try number(position, 8), try number(position + 8, 4))
            let (idSize, nameSize, extra) = (try number(position + 12, 2), try number(position + 14, 2), try number(position + 36, 4))
            guard offset % (unit * 512) == 0, offset > 0, entries < 1000, extra == 24, idSize < 10, nameSize < 10 else { throw Problem(description: "the snapshot table is nonsense") }
            let diskSize = try number(position + 48, 8) / 512
            _ = try number(position + 64, idSize + nameSize)
            let id = String(decoding: bytes[position + 64..<position + 64 + idSize], as: UTF8.self)
            snapshots.append(Snapshot(id: id, sectors: try walk(offset / 512 / unit, entries, diskSize, isActive: false)))
            position += (64 + idSize + nameSize + 7) / 8 * 8
        }
        for cluster in 0..<clusters(position) { try self.count(table + cluster, "snapshot table") }
    }

    /// How many clusters so many bytes take.
    private func clusters(_ byteCount: Int) -> Int { (byteCount + unit * 512 - 1) / (unit * 512) }

    /// Bytes from clusters in a row.
    private func number(_ cluster: Int, _ offset: Int, _ length: Int) throws -> Int {
        try (offset..<offset + length).reduce(0) { value, position in
            let sector = cluster * unit + position / 512
            guard disk.indices.contains(sector) else { throw Problem(description: "the bitmap directory is cut off") }
            return value << 8 | Int(contents.bytes[Int(disk[sector])][position % 512])
        }
    }

    private mutating func readBitmaps(headerLength: Int) throws {
        var place = headerLength
        let end = unit * 512
        while place + 8 <= end, try number(0, place, 4) != 0, try number(0, place, 4) != 0x2385_2875 { place += 8 + (try number(0, place + 4, 4) + 7) / 8 * 8 }
        guard place + 32 <= end, try number(0, place, 4) == 0x2385_2875 else { throw Problem(description: "bitmaps are in force and there is no extension") }
        let (bitmapCount, directorySize, directory) = (try number(0, place + 8, 4), try number(0, place + 16, 8), try number(0, place + 24, 8) / 512 / unit)
        for cluster in 0..<clusters(directorySize) { try count(directory + cluster, "bitmap directory") }
        var entry = 0
        for _ in 0..<bitmapCount {
            let (table, entries) = (try number(directory, entry, 8) / 512 / unit, try number(directory, entry + 8, 4))
            let nameSize = try number(directory, entry + 18, 2), extra = try number(directory, entry + 20, 4)
            let name = try (0..<nameSize).map { UInt8(try number(directory, entry + 24 + extra + $0, 1)) }
            var bitmap = Bitmap(
                name: String(decoding: name, as: UTF8.self), isInUse: try number(directory, entry + 12, 4) & 1 == 1,
                granularity: 1 << (try number(directory, entry + 17, 1)), isDirty: [])
            for cluster in 0..<clusters(entries * 8) { try count(table + cluster, "bitmap table") }
            for index in 0..<entries {
                let word = try word(table, index)
                let host = cluster(word)
                if host == 0 {
                    bitmap.isDirty += [Bool](repeating: word & 1 == 1, count: unit * 4096)
                } else {
                    try count(host, "bitmap")
                    for sector in host * unit..<(host + 1) * unit where sector < disk.count {
                        for byte in contents.bytes[Int(disk[sector])] { bitmap.isDirty += (0..<8).map { byte >> $0 & 1 == 1 } }
                    }
                }
            }
            bitmaps.append(bitmap)
            entry += (24 + extra + nameSize + 7) / 8 * 8
        }
        guard entry == directorySize else { throw Problem(description: "a bitmap directory of \(directorySize) bytes with \(entry) bytes of entries") }
    }
}
