import StrataBase

/// One refcount block: the reference counts of consecutive host clusters. Source: docs/interop/qcow2, "Refcount table and blocks".
///
/// Refcounts of less than a byte are packed from the least significant bit of each byte; wider ones are big-endian.
package struct RefcountBlock: Hashable, Sendable {
    /// As on disk; exactly one cluster.
    package private(set) var bytes: [UInt8]
    let order: Int

    /// - Precondition: `bytes` is one cluster.
    package init(bytes: [UInt8], order: Int) {
        self.bytes = bytes
        self.order = order
    }

    package init(emptyFor geometry: ClusterGeometry) {
        bytes = [UInt8](repeating: 0, count: geometry.clusterSize)
        order = geometry.refcountOrder
    }

    package var count: Int { (bytes.count << 3) >> order }

    /// - Precondition: `index` is inside the block.
    package subscript(index: Int) -> UInt64 {
        get {
            switch order {
            case 4: return UInt64(bytes[index * 2]) << 8 | UInt64(bytes[index * 2 + 1])
            case 3: return UInt64(bytes[index])
            case 0, 1, 2:
                let bit = index << order
                return UInt64(bytes[bit >> 3]) >> UInt64(bit & 7) & ((1 << (1 << UInt64(order))) - 1)
            default:
                let size = 1 << (order - 3)
                var value: UInt64 = 0
                for position in (index * size)..<(index * size + size) { value = value << 8 | UInt64(bytes[position]) }
                return value
            }
        }
        set {
            switch order {
            case 4:
                bytes[index * 2] = UInt8(truncatingIfNeeded: newValue >> 8)
                bytes[index * 2 + 1] = UInt8(truncatingIfNeeded: newValue)
            case 3: bytes[index] = UInt8(truncatingIfNeeded: newValue)
            case 0, 1, 2:
                let bit = index << order
                let mask: UInt8 = (1 << (1 << UInt8(order))) - 1
                let shift = UInt8(bit & 7)
                bytes[bit >> 3] = bytes[bit >> 3] & ~(mask << shift) | (UInt8(truncatingIfNeeded: newValue) & mask) << shift
            default:
                let size = 1 << (order - 3)
                for position in 0..<size {
                    bytes[index * size + position] = UInt8(truncatingIfNeeded: newValue >> UInt64((size - 1 - position) * 8))
                }
            }
        }
    }

    /// The first index at or after `start` whose refcount is zero, nil when none is left.
    package func firstFree(from start: Int) -> Int? {
        var index = start
        let count = count
        while index < count {
            if self[index] == 0 { return index }
            index += 1
        }
        return nil
    }

    /// How many refcounts from `start` on are zero, at most `limit`.
    package func freeRun(from start: Int, limit: Int) -> Int {
        let end = min(count, start + limit)
        var index = start
        while index < end, self[index] == 0 { index += 1 }
        return index - start
    }
}
