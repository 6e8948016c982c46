import StrataBase

/// What a run of guest bytes maps to. Plain bits, so that looking one up costs no allocation.
struct GuestExtent: Hashable, Sendable, BitwiseCopyable {
    enum Kind: UInt8, Sendable {
        /// The backing file decides; without one it is zeroes.
        case unallocated
        /// The same, and there is room for it in a host cluster: subclusters that were not written yet.
        case reserved
        case zero, zeroAllocated, normal, compressed

        /// Whether there is a host cluster that goes on with the next bytes.
        var hasHost: Bool { self == .normal || self == .zeroAllocated || self == .reserved }
    }

    var kind: Kind
    /// Bytes; all of them mean the same.
    var byteCount: Int
    /// Where the first byte lies, for kinds that have a host cluster; for compressed data use `entry`.
    var host: HostOffset
    var entry: L2Entry
}

// Private functions of the state that every request calls are `mutating` also where they change nothing: the compiler copies the state, some six hundred
// bytes, for a call of any other.

extension ImageState {
    /// Looks up what `guest` maps to and how far that goes, at most `limit` bytes and not beyond its slice.
    /// - Throws: an obstacle when the slice is not in memory or an entry is invalid.
    mutating func extent(at guest: GuestOffset, limit: Int) throws(Obstacle) -> GuestExtent {
        let offsetInCluster = guest.rawValue & (geometry.clusterSize &- 1)
        guard let slot = l2.slot(of: slice(of: guest)) else { return try extentWithoutSlice(at: guest, limit: limit) }
        let position = position(of: guest)
        let entry = l2.entry(slot, position)
        let inSlice = ((l2.entriesPerSlice &- position) &<< geometry.clusterBits) &- offsetInCluster
        let end = min(limit, inSlice)
        if geometry.hasSubclusters { return try dividedExtent(at: guest, slot, position, end: end) }
        let first = min(geometry.clusterSize &- offsetInCluster, end)

        // The common case by hand: a cluster of its own, and the next ones if they follow on disk.
        let flags = entry.bits & ~(L2Entry.offsetMask | L2Entry.copiedFlag)
        let offset = entry.hostOffset
        if flags == 0, offset != 0, offset & (geometry.clusterSize &- 1) == 0 {
            var byteCount = first
            if end > byteCount {
                var next = position &+ 1
                var expected = entry.bits &+ UInt64(geometry.clusterSize)
                while byteCount < end, l2.entry(slot, next).bits == expected {
                    byteCount = min(byteCount &+ geometry.clusterSize, end)
                    next &+= 1
                    expected &+= UInt64(geometry.clusterSize)
                }
            }
            return GuestExtent(kind: .normal, byteCount: byteCount, host: HostOffset(offset &+ offsetInCluster), entry: entry)
        }
        return try unusualExtent(at: guest, slot, position, first: first, end: end)
    }

    /// The same across slices, as far as they are in memory: for those who ask what is there rather than read it.
    mutating func wideExtent(at guest: GuestOffset, limit: Int) throws(Obstacle) -> GuestExtent {
        var extent = try extent(at: guest, limit: limit)
        // Bounded, because nobody else gets at the mapping meanwhile.
        for _ in 0..<32 {
            let end = guest + extent.byteCount
            // Only the end of a slice cuts an extent short that goes on behind it.
            guard extent.byteCount < limit, end.rawValue & ((1 << sliceShift) &- 1) == 0, extent.kind != .compressed else { break }
            guard let next = try? self.extent(at: end, limit: limit - extent.byteCount), next.kind == extent.kind else { break }
            if extent.kind.hasHost, next.host != extent.host + extent.byteCount { break }
            extent.byteCount += next.byteCount
        }
        return extent
    }

    /// Everything but plain normal clusters.
    private mutating func unusualExtent(at guest: GuestOffset, _ slot: Int, _ position: Int, first: Int, end: Int) throws(Obstacle) -> GuestExtent {
        let entry = l2.entry(slot, position)
        let offsetInCluster = guest.rawValue & (geometry.clusterSize &- 1)
        switch entry.meaning(in: geometry, version: version) {
        case .invalid, .mixed: throw .corrupt(.l2Entry(guest: guest, bits: entry.bits))
        case .compressed: return GuestExtent(kind: .compressed, byteCount: first, host: HostOffset(0), entry: entry)
        case .normal(let host):
            // Reserved bits are set, which `check` reports, or it is the first cluster of a data file.
            return GuestExtent(kind: .normal, byteCount: first, host: host + offsetInCluster, entry: entry)
        case .zero(let host?):
            var byteCount = first
            var next = position + 1
            var expected = entry.bits &+ UInt64(geometry.clusterSize)
            while byteCount < end, l2.entry(slot, next).bits == expected {
                byteCount = min(byteCount + geometry.clusterSize, end)
                next += 1
                expected &+= UInt64(geometry.clusterSize)
            }
            return GuestExtent(kind: .zeroAllocated, byteCount: byteCount, host: host + offsetInCluster, entry: entry)
        case .zero(nil), .unallocated:
            var byteCount = first
            var next = position + 1
            while byteCount < end, l2.entry(slot, next).bits == entry.bits {
                byteCount = min(byteCount + geometry.clusterSize, end)
                next += 1
            }
            return GuestExtent(kind: entry.readsAsZero ? .zero : .unallocated, byteCount: byteCount, host: HostOffset(0), entry: entry)
        }
    }

    /// In an image with subclusters.
    private mutating func dividedExtent(at guest: GuestOffset, _ slot: Int, _ position: Int, end: Int) throws(Obstacle) -> GuestExtent {
        let entry = l2.entry(slot, position)
        let offsetInCluster = guest.rawValue & (geometry.clusterSize &- 1)
        switch entry.meaning(in: geometry, version: version) {
        case .invalid: throw .corrupt(.l2Entry(guest: guest, bits: entry.bits))
        case .compressed:
            return GuestExtent(kind: .compressed, byteCount: min(geometry.clusterSize - offsetInCluster, end), host: HostOffset(0), entry: entry)
        case .normal, .zero, .mixed, .unallocated: break
        }
        let first = offsetInCluster >> geometry.subclusterBits
        let kind = entry.kind(ofSubcluster: first, in: geometry)
        var last = first + entry.subclusters.run(from: first)
        var byteCount = last << geometry.subclusterBits - offsetInCluster
        // On through the next clusters while they mean the same and follow on disk.
        var next = position + 1
        var expected = entry.bits
        while last == ClusterGeometry.subclustersPerCluster, byteCount < end {
            if entry.hasHost(in: geometry) { expected &+= UInt64(geometry.clusterSize) }
            let other = l2.entry(slot, next)
            guard other.bits == expected, other.kind(ofSubcluster: 0, in: geometry) == kind else { break }
            if case .invalid = other.meaning(in: geometry, version: version) { break }
            last = other.subclusters.run(from: 0)
            byteCount += last << geometry.subclusterBits
            next += 1
        }
        let host = entry.host(in: geometry).map { $0 + offsetInCluster } ?? HostOffset(0)
        return GuestExtent(kind: kind, byteCount: min(byteCount, end), host: host, entry: entry)
    }

    /// Without a table nothing below an L1 entry is allocated; with one the slice must be read.
    private mutating func extentWithoutSlice(at guest: GuestOffset, limit: Int) throws(Obstacle) -> GuestExtent {
        let slice = slice(of: guest)
        if try hostOffset(ofSlice: slice) != nil { throw .l2Slice(slice) }
        let inTable = (1 << geometry.l1Shift) - guest.rawValue & ((1 << geometry.l1Shift) - 1)
        return GuestExtent(kind: .unallocated, byteCount: min(limit, inTable), host: HostOffset(0), entry: .unallocated)
    }

    /// The slot of the slice of `guest` in a table that may be changed.
    mutating func writableSlot(of guest: GuestOffset) throws(Obstacle) -> Int {
        let index = l1Index(of: guest)
        guard index < l1.count, L1Entry(bits: l1[index]).isCopied, L1Entry(bits: l1[index]).tableOffset != 0 else {
            throw .l2Table(l1Index: index)
        }
        guard L1Entry(bits: l1[index]).tableOffset < refcounts.endOfFile else { throw .corrupt(.l1Entry(index: index, bits: l1[index])) }
        let slice = slice(of: guest)
        guard let slot = l2.slot(of: slice) else { throw .l2Slice(slice) }
        return slot
    }
}
