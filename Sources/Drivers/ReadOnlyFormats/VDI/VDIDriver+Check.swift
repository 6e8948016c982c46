package import BlockGraph
package import StrataBase

extension VDIDriver: Checking {
    /// Looks at every entry of the block map: none may lead outside the image, and no two to the same place. Sentences are those of qemu-img.
    package func check(repair: CheckRepair, progress: (@Sendable (_ done: Int, _ total: Int) -> Void)?) async throws(BlockError) -> CheckReport {
        var report = try CheckReport(refusing: repair, for: Self.formatName)
        var used = UsedBlocks()
        var allocatedCount = 0
        for block in 0..<header.blockCount {
            if block.isMultiple(of: 1 << 16) {
                if Task.isCancelled { throw BlockError(.cancelled, "the check was interrupted") }
                progress?(block, header.blockCount)
            }
            guard let entry = try await loadedEntry(block) else { continue }
            guard entry < header.blockCount else {
                report.noteDamage("block index \(block) too large, is \(entry)")
                continue
            }
            allocatedCount += 1
            if !used.insert(Int(entry)) { report.noteDamage("block index \(entry) also used by \(entry)") }
        }
        if allocatedCount != header.allocatedBlockCount { report.noteDamage("allocated blocks mismatch, is \(allocatedCount), should be \(header.allocatedBlockCount)") }
        return report
    }

    private func loadedEntry(_ block: Int) async throws(BlockError) -> UInt32? {
        while true {
            do {
                return try entry(block)
            } catch {
                switch error {
                case .page(let page): try await tables.load(page)
                case .damage(let damage): throw damage
                }
            }
        }
    }
}

/// Which blocks have been met. Takes memory only near those: a map without end that always names the same block costs nothing.
private struct UsedBlocks {
    private static let chunkBits = 1 << 15
    private var chunks: [Int: [UInt64]] = [:]

    /// - Returns: whether it was not there before.
    mutating func insert(_ block: Int) -> Bool {
        let (chunk, bit) = block.quotientAndRemainder(dividingBy: Self.chunkBits)
        let mask = UInt64(1) << UInt64(bit % 64)
        var words = chunks.removeValue(forKey: chunk) ?? [UInt64](repeating: 0, count: Self.chunkBits / 64)
        let isNew = words[bit / 64] & mask == 0
        words[bit / 64] |= mask
        chunks[chunk] = words
        return isNew
    }
}
