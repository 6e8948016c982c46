import StrataBase

/// How many references each host cluster has, counted from the tables. Sparse: clusters that nobody names cost nothing, so a file that claims
/// to be huge does not make the check so.
struct ReferenceCounts: Sendable {
    private static let chunkBits = 6
    static var chunkSize: Int { 1 << chunkBits }
    /// A bound for memory: 1 GiB of counts, enough for a file of 16 TiB at 64 KiB clusters.
    private static let maximumChunks = 1 << 22

    private var chunks = IntTable()
    private var counts: [UInt32] = []
    private var lastKey = -1
    private var lastStart = 0

    func count(_ cluster: Int) -> UInt32 {
        guard let chunk = chunks.value(for: cluster >> Self.chunkBits) else { return 0 }
        return counts[Int(chunk) << Self.chunkBits + (cluster & (Self.chunkSize - 1))]
    }

    /// - Throws: `.tooLarge` when the references are spread over more memory than a check may use.
    mutating func add(_ cluster: Int) throws(BlockError) {
        let key = cluster >> Self.chunkBits
        if key != lastKey {
            if let chunk = chunks.value(for: key) {
                lastStart = Int(chunk) << Self.chunkBits
            } else {
                let number = counts.count >> Self.chunkBits
                guard number < Self.maximumChunks else {
                    throw BlockError(.tooLarge, "The image refers to too many places of its file to be checked in reasonable memory")
                }
                chunks.insert(key, Int32(truncatingIfNeeded: number))
                lastStart = counts.count
                counts.append(contentsOf: repeatElement(0, count: Self.chunkSize))
            }
            lastKey = key
        }
        let position = lastStart + (cluster & (Self.chunkSize - 1))
        if counts[position] < .max { counts[position] += 1 }
    }

    /// Takes references away; those that are not there are not missed.
    mutating func remove(_ cluster: Int, _ number: Int) {
        for cluster in cluster..<(cluster + number) {
            guard let chunk = chunks.value(for: cluster >> Self.chunkBits) else { continue }
            let position = Int(chunk) << Self.chunkBits + (cluster & (Self.chunkSize - 1))
            if counts[position] > 0, counts[position] < .max { counts[position] -= 1 }
        }
    }

    /// The counts of the chunk that starts at a cluster; nil when none has a reference.
    func chunk(startingAt start: Int) -> Chunk? {
        chunks.value(for: start >> Self.chunkBits).map { Chunk(counts: counts, start: Int($0) << Self.chunkBits) }
    }

    struct Chunk {
        fileprivate let counts: [UInt32]
        fileprivate let start: Int
        subscript(position: Int) -> UInt32 { counts[start &+ position] }
    }

    /// Whether the chunk that starts at a cluster has a reference left.
    func hasAny(_ start: Int) -> Bool { (start..<start + Self.chunkSize).contains { count($0) > 0 } }

    /// Behind the last cluster that has a reference.
    var end: Int {
        for start in chunkStarts.reversed() {
            if let last = (start..<start + Self.chunkSize).last(where: { count($0) > 0 }) { return last + 1 }
        }
        return 0
    }

    /// Every chunk of clusters that has a reference, in order: the first cluster of each.
    var chunkStarts: [Int] { chunks.allKeys().sorted().map { $0 << Self.chunkBits } }
}
