import StrataTesting

/// What a guest must read: the byte that fills each sector. As a pattern it is what qemu-io writes and verifies by itself, so that contents of
/// megabytes cost neither program nor test a copy.
struct GuestModel {
    static let sector = 512

    /// For each sector the byte that it is full of.
    private(set) var sectors: [UInt8]
    /// Sectors that were written, zeroed or discarded since bitmaps began to be kept.
    private(set) var touched: Set<Int> = []

    var byteCount: Int { sectors.count * Self.sector }

    /// - Parameter byteCount: a multiple of 512.
    init(byteCount: Int) { sectors = [UInt8](repeating: 0, count: byteCount / Self.sector) }

    /// - Parameter range: bytes, aligned to sectors and inside the disk.
    mutating func fill(_ range: Range<Int>, with byte: UInt8) {
        for sector in range.lowerBound / Self.sector..<range.upperBound / Self.sector {
            sectors[sector] = byte
            touched.insert(sector)
        }
    }

    /// What is new reads as zeroes.
    mutating func resize(to byteCount: Int) {
        let count = byteCount / Self.sector
        if count < sectors.count { sectors.removeLast(sectors.count - count) }
        sectors += [UInt8](repeating: 0, count: count - sectors.count)
        touched = touched.filter { $0 < count }
    }

    mutating func forgetTouched() { touched = [] }
    /// The same disk with other contents: a snapshot was applied.
    mutating func take(_ other: [UInt8]) { sectors = other }

    /// Commands for qemu-io that verify every byte: one for each run of equal sectors.
    var verification: [String] {
        var commands: [String] = []
        var start = 0
        while start < sectors.count {
            var end = start + 1
            while end < sectors.count, sectors[end] == sectors[start] { end += 1 }
            commands.append("read -P \(sectors[start]) \(start * Self.sector) \((end - start) * Self.sector)")
            start = end
        }
        return commands
    }
}
