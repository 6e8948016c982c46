import Foundation

/// A reader and checker of qcow2 images that shares no code with the driver, for images whose clusters are sectors: 512 bytes, version 3, refcounts of
/// 8 bits and more, zlib. Fast, because crash proofs ask it millions of times.
struct IndependentCheck {
    struct Snapshot: Equatable {
        var id: String
        var sectors: [Int32]
    }

    /// A persistent bitmap that is in force.
    struct Bitmap: Equatable {
        var name: String
        /// The mark of a bitmap that lacks writes.
        var isInUse: Bool
        var granularity: Int
        /// One for each bit that the tables have room for.
        var isDirty: [Bool]
    }

    struct Problem: Error, CustomStringConvertible { let description: String }

    let contents: SectorContents
    let disk: [Int32]
    private var references: [UInt16]
    private var refcountBlocks: [Int] = []
    private var refcountOrder = 4

    /// What the guest sees. Sectors of the virtual disk.
    private(set) var guest: [Int32] = []
    private(set) var snapshots: [Snapshot] = []
    private(set) var bitmaps: [Bitmap] = []

    private static let offsetMask: UInt64 = 0x00ff_ffff_ffff_fe00

    /// - Throws: what is wrong with the image; leaks are not.
    init(_ disk: [Int32], _ contents: SectorContents) throws {
        self.disk = disk
        self.contents = contents
        references = [UInt16](repeating: 0, count: disk.count)
        try check()
    }

    private func words(_ cluster: Int) throws -> [UInt64] {
        guard disk.indices.contains(cluster) else { throw Problem(description: "a table lies behind the end of the file, in cluster \(cluster)") }
        return contents.words(disk[cluster])
    }

    private mutating func count(_ cluster: Int, _ what: @autoclosure () -> String) throws {
        guard disk.indices.contains(cluster) else { throw Problem(description: "\(what()) behind the end of the file: cluster \(cluster)") }
        references[cluster] += 1
    }

    private func refcount(_ cluster: Int) throws -> UInt64 {
        let bits = 1 << refcountOrder, inWord = 64 / bits, inBlock = 512 * 8 / bits
        let index = cluster / inBlock
        guard refcountBlocks.indices.contains(index), refcountBlocks[index] != 0 else { return 0 }
        let word = try words(refcountBlocks[index])[cluster % inBlock / inWord]
        return (word << UInt64(bits * (cluster % inWord))) >> UInt64(64 - bits)
    }

    private mutating func check() throws {
        let header = try words(0)
        guard header[0] == 0x5146_49fb_0000_0003 else { throw Problem(description: "no header") }
        guard header[9] & 3 == 0 else { throw Problem(description: "marked dirty or corrupt") }
        refcountOrder = Int(header[12] >> 32)
        guard (3...6).contains(refcountOrder) else { throw Problem(description: "refcounts of \(1 << refcountOrder) bits") }
        try count(0, "header")
        let size = Int(header[3]) / 512
        let l1Size = Int(header[4] & 0xffff_ffff), l1 = Int(header[5]) / 512
        let table = Int(header[6]) / 512, tableClusters = Int(header[7] >> 32)
        let snapshotCount = Int(header[7] & 0xffff_ffff), snapshotTable = Int(header[8]) / 512
        for cluster in 0..<tableClusters {
            try count(table + cluster, "refcount table")
            for entry in try words(table + cluster) { refcountBlocks.append(Int(entry) / 512) }
        }
        for block in refcountBlocks where block != 0 { try count(block, "refcount block") }
        guest = try walk(l1, l1Size, size, isActive: true)
        try readSnapshots(snapshotTable, snapshotCount, size)
        // An extension without its autoclear bit is somebody's who knew nothing of bitmaps.
        if header[11] & 1 == 1 { try readBitmaps(headerLength: Int(header[12] & 0xffff_ffff)) }
        for cluster in references.indices where references[cluster] > 0 {
            let stored = try refcount(cluster)
            if stored < UInt64(references[cluster]) { throw Problem(description: "cluster \(cluster) has \(references[cluster]) references and refcount \(stored)") }
        }
    }

    private mutating func walk(_ table: Int, _ entries: Int, _ size: Int, isActive: Bool) throws -> [Int32] {
        var seen = [Int32](repeating: 0, count: size)
        for index in 0..<entries {
            if index % 64 == 0 { try count(table + index / 64, "L1 table") }
            let entry = try words(table + index / 64)[index % 64]
            let l2 = Int(entry & Self.offsetMask) / 512
            if l2 == 0 { continue }
            try count(l2, "L2 table")
            if isActive, (try refcount(l2) == 1) != (entry >> 63 == 1) { throw Problem(description: "L1 entry \(index): copied flag and refcount \(try refcount(l2))") }
            for (position, bits) in try words(l2).enumerated() where bits != 0 {
                let sector = index * 64 + position
                let found = try content(bits, sector, isActive: isActive)
                if sector < size { seen[sector] = found }
            }
        }
        return seen
    }

    private mutating func content(_ bits: UInt64, _ sector: Int, isActive: Bool) throws -> Int32 {
        if bits >> 62 & 1 == 1 {
            if bits >> 63 == 1 { throw Problem(description: "sector \(sector): compressed with a copied flag") }
            let offset = Int(bits & ((1 << 61) - 1)), byteCount = (Int(bits >> 61 & 1) + 1) * 512 - offset % 512
            var stream: [UInt8] = []
            for cluster in offset / 512...(offset + byteCount - 1) / 512 {
                try count(cluster, "compressed data")
                stream += contents.bytes[Int(disk[cluster])]
            }
            let part = Array(stream[offset % 512..<offset % 512 + byteCount])
            // A stream that is broken is content like any other: whether it may be is for the model to say.
            return contents.expand(part) ?? -1
        }
        let host = Int(bits & Self.offsetMask) / 512
        if host != 0 {
            try count(host, "data")
            if isActive, (try refcount(host) == 1) != (bits >> 63 == 1) { throw Problem(description: "sector \(sector): copied flag and refcount \(try refcount(host))") }
        }
        return host == 0 || bits & 1 == 1 ? 0 : disk[host]
    }

    private mutating func readSnapshots(_ table: Int, _ count: Int, _ size: Int) throws {
        if count == 0 { return }
        var bytes: [UInt8] = []
        func number(_ offset: Int, _ length: Int) throws -> Int {
            while bytes.count < offset + length {
                guard disk.indices.contains(table + bytes.count / 512) else { throw Problem(description: "the snapshot table is cut off") }
                bytes += contents.bytes[Int(disk[table + bytes.count / 512])]
            }
            return bytes[offset..<offset + length].reduce(0) { $0 << 8 | Int($1) }
        }
        var position = 0
        for _ in 0..<count {
            let (offset, entries) = (try number(position, 8), try number(position + 8, 4))
            let (idSize, nameSize, extra) = (try number(position + 12, 2), try number(position + 14, 2), try number(position + 36, 4))
            guard offset % 512 == 0, offset > 0, entries < 1000, extra == 24, idSize < 10, nameSize < 10 else { throw Problem(description: "the snapshot table is nonsense") }
            let diskSize = try number(position + 48, 8) / 512
            _ = try number(position + 64, idSize + nameSize)
            let id = String(decoding: bytes[position + 64..<position + 64 + idSize], as: UTF8.self)
            snapshots.append(Snapshot(id: id, sectors: try walk(offset / 512, entries, diskSize, isActive: false)))
            position += (64 + idSize + nameSize + 7) / 8 * 8
        }
        for cluster in 0..<(position + 511) / 512 { try self.count(table + cluster, "snapshot table") }
    }

    /// Bytes from clusters in a row.
    private func number(_ cluster: Int, _ offset: Int, _ length: Int) throws -> Int {
        try (offset..<offset + length).reduce(0) { value, position in
            guard disk.indices.contains(cluster + position / 512) else { throw Problem(description: "the bitmap directory is cut off") }
            return value << 8 | Int(contents.bytes[Int(disk[cluster + position / 512])][position % 512])
        }
    }

    private mutating func readBitmaps(headerLength: Int) throws {
        var place = headerLength
        while place + 8 <= 512, try number(0, place, 4) != 0, try number(0, place, 4) != 0x2385_2875 { place += 8 + (try number(0, place + 4, 4) + 7) / 8 * 8 }
        guard place + 32 <= 512, try number(0, place, 4) == 0x2385_2875 else { throw Problem(description: "bitmaps are in force and there is no extension") }
        let (bitmapCount, directorySize, directory) = (try number(0, place + 8, 4), try number(0, place + 16, 8), try number(0, place + 24, 8) / 512)
        for cluster in 0..<(directorySize + 511) / 512 { try count(directory + cluster, "bitmap directory") }
        var entry = 0
        for _ in 0..<bitmapCount {
            let (table, entries) = (try number(directory, entry, 8) / 512, try number(directory, entry + 8, 4))
            let nameSize = try number(directory, entry + 18, 2), extra = try number(directory, entry + 20, 4)
            let name = try (0..<nameSize).map { UInt8(try number(directory, entry + 24 + extra + $0, 1)) }
            var bitmap = Bitmap(
                name: String(decoding: name, as: UTF8.self), isInUse: try number(directory, entry + 12, 4) & 1 == 1,
                granularity: 1 << (try number(directory, entry + 17, 1)), isDirty: [])
            for cluster in 0..<(entries * 8 + 511) / 512 { try count(table + cluster, "bitmap table") }
            for index in 0..<entries {
                let word = try words(table + index / 64)[index % 64]
                let host = Int(word & Self.offsetMask) / 512
                if host == 0 {
                    bitmap.isDirty += [Bool](repeating: word & 1 == 1, count: 4096)
                } else {
                    try count(host, "bitmap")
                    for byte in contents.bytes[Int(disk[host])] { bitmap.isDirty += (0..<8).map { byte >> $0 & 1 == 1 } }
                }
            }
            bitmaps.append(bitmap)
            entry += (24 + extra + nameSize + 7) / 8 * 8
        }
        guard entry == directorySize else { throw Problem(description: "a bitmap directory of \(directorySize) bytes with \(entry) bytes of entries") }
    }
}
