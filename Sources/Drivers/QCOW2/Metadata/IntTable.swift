/// A hash table from non-negative integers to 32-bit integers: open addressing, linear probing, at most half full.
///
/// The look-up on the I/O path costs a multiplication and usually one cache line, several times less than `Dictionary`.
struct IntTable: Sendable {
    private var keys: [Int]
    private var values: [Int32]
    private var shift: Int
    private(set) var count = 0

    private static let empty = -1

    /// - Parameter capacity: how many entries fit before the table grows.
    init(capacity: Int = 16) {
        var bits = 5
        while 1 << bits < capacity * 2 { bits += 1 }
        keys = [Int](repeating: Self.empty, count: 1 << bits)
        values = [Int32](repeating: 0, count: 1 << bits)
        shift = 64 - bits
    }

    private func home(_ key: Int) -> Int { Int(truncatingIfNeeded: (UInt64(bitPattern: Int64(key)) &* 0x9e37_79b9_7f4a_7c15) >> UInt64(shift)) }

    func value(for key: Int) -> Int32? {
        var position = home(key)
        let mask = keys.count &- 1
        while true {
            let found = keys[position]
            if found == key { return values[position] }
            if found == Self.empty { return nil }
            position = (position &+ 1) & mask
        }
    }

    mutating func insert(_ key: Int, _ kind: MetadataKind) { insert(key, kind.rawValue) }

    func contains(_ key: Int) -> Bool { value(for: key) != nil }

    mutating func insert(_ key: Int, _ value: Int32 = 0) {
        if (count + 1) * 2 > keys.count { grow() }
        let mask = keys.count &- 1
        var position = home(key)
        while keys[position] != Self.empty {
            if keys[position] == key {
                values[position] = value
                return
            }
            position = (position &+ 1) & mask
        }
        keys[position] = key
        values[position] = value
        count += 1
    }

    mutating func remove(_ key: Int) {
        let mask = keys.count &- 1
        var hole = home(key)
        while keys[hole] != key {
            if keys[hole] == Self.empty { return }
            hole = (hole &+ 1) & mask
        }
        count -= 1
        // Entries behind the hole move up unless that would put them before their home.
        var next = hole
        while true {
            next = (next &+ 1) & mask
            if keys[next] == Self.empty { break }
            let distanceFromHome = (next &- home(keys[next])) & mask
            if distanceFromHome >= (next &- hole) & mask {
                keys[hole] = keys[next]
                values[hole] = values[next]
                hole = next
            }
        }
        keys[hole] = Self.empty
    }

    func allKeys() -> [Int] { keys.filter { $0 != Self.empty } }

    private mutating func grow() {
        var larger = IntTable(capacity: keys.count)
        for position in keys.indices where keys[position] != Self.empty { larger.insert(keys[position], values[position]) }
        self = larger
    }
}
