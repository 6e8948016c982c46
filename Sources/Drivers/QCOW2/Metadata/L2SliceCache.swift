import StrataBase

/// The part of the guest-to-host mapping that is in memory: slices of L2 tables, replaced by the clock algorithm, written back later.
///
/// A value inside the image's `Mutex`; it does no I/O. Slices are numbered by the guest range that they map, so that a table which moves
/// keeps its slices. Entries are in host byte order. A dirty slice is never evicted: `MetadataCommit` writes it in the order that
/// Docs/CrashConsistency.md states and then calls `written`.
struct L2SliceCache: Sendable {
    /// log2 of the entries in a slice.
    let sliceBits: Int
    /// log2 of the words in an entry.
    let wordBits: Int
    private var wordsPerSlice: Int { 1 << (sliceBits + wordBits) }
    var entriesPerSlice: Int { 1 << sliceBits }

    private struct Slot {
        /// The slice that is here, -1 for none.
        var slice: Int
        /// Counts changes; tells whether a slice that was just written has changed meanwhile.
        var version: UInt32 = 0
        var isDirty = false
        /// False while the slice is being read: nobody else may use the slot.
        var isReady = false
        /// The clock's second chance.
        var isRecent = false
    }

    private var entries: [UInt64] = []
    private var slots: [Slot] = []
    private var index = IntTable()
    private var hand = 0
    /// The slice behind the last ones that were read: who asks for it goes through the disk from front to back.
    private var expected = -1
    /// Slots of slices that somebody passed, a ring: the next ones to be passed take these slots, so that going through a large mapping touches little
    /// memory and pushes out little that others need.
    private var passedSlots: [Int] = []
    private var oldestPassed = 0
    private(set) var dirtyCount = 0
    /// How many slices fit.
    private(set) var capacity: Int

    init(sliceBits: Int, wordBits: Int = 0, capacity: Int) {
        self.sliceBits = sliceBits
        self.wordBits = wordBits
        self.capacity = capacity
        // Address space, not memory: pages are touched when slices arrive.
        entries.reserveCapacity(capacity << (sliceBits + wordBits))
    }

    mutating func grow(toCapacity wanted: Int) { capacity = max(capacity, wanted) }

    /// The slot of a slice that may be used now.
    mutating func slot(of slice: Int) -> Int? {
        guard let found = index.value(for: slice) else { return nil }
        let slot = Int(found)
        if !slots[slot].isReady { return nil }
        slots[slot].isRecent = true
        return slot
    }

    func entry(_ slot: Int, _ position: Int) -> L2Entry {
        let index = (slot &<< sliceBits &+ position) &<< wordBits
        if wordBits == 0 { return L2Entry(bits: entries[index]) }
        return L2Entry(bits: entries[index], subclusters: SubclusterBitmap(bits: entries[index &+ 1]))
    }

    mutating func set(_ entry: L2Entry, _ slot: Int, _ position: Int) {
        let index = (slot &<< sliceBits &+ position) &<< wordBits
        entries[index] = entry.bits
        if wordBits != 0 { entries[index &+ 1] = entry.subclusters.bits }
        slots[slot].version &+= 1
        if !slots[slot].isDirty {
            slots[slot].isDirty = true
            dirtyCount += 1
        }
    }

    var slotCount: Int { slots.count }

    /// Whether nobody has looked at it since this was asked last, and nothing in it is needed.
    mutating func takeIdleness() -> Bool {
        var isIdle = dirtyCount == 0
        for slot in slots.indices {
            if slots[slot].isRecent || (slots[slot].slice >= 0 && !slots[slot].isReady) { isIdle = false }
            slots[slot].isRecent = false
        }
        return isIdle && !slots.isEmpty
    }

    // MARK: Reading

    enum LoadStart: Hashable {
        /// Read the slice, then call `finishLoad` or `abandonLoad`.
        case read(slot: Int)
        case present
        /// Somebody else is reading it.
        case underWay
        /// Every slot is dirty or being read.
        case noCleanSlot
    }

    /// - Parameter isPassing: whether it is looked at once, by somebody who asks what is where and not for data.
    mutating func beginLoad(of slice: Int, isPassing: Bool = false) -> LoadStart {
        if let found = index.value(for: slice) { return slots[Int(found)].isReady ? .present : .underWay }
        guard let slot = isPassing ? takePassedSlot() : takeSlot() else { return .noCleanSlot }
        slots[slot].slice = slice
        slots[slot].isReady = false
        index.insert(slice, Int32(truncatingIfNeeded: slot))
        return .read(slot: slot)
    }

    /// Begins to load slices behind one whose load has begun, if it was the next in a row.
    /// - Parameter last: the last slice of the same table.
    /// - Returns: how many; they follow each other. Each is to be ended like the first.
    mutating func beginReadingAhead(of slice: Int, through last: Int, isPassing: Bool = false) -> Int {
        let isNext = slice == expected
        var next = slice + 1
        // Never at the cost of much of a small cache.
        if isNext, capacity >= Self.longestReadAhead * 8 {
            while next <= last, next - slice < Self.longestReadAhead, case .read = beginLoadIfAbsent(next, isPassing) { next += 1 }
        }
        expected = next
        return next - slice - 1
    }

    private static let longestReadAhead = 16

    private mutating func beginLoadIfAbsent(_ slice: Int, _ isPassing: Bool) -> LoadStart {
        index.contains(slice) ? .present : beginLoad(of: slice, isPassing: isPassing)
    }

    /// The slot of a slice whose load is under way.
    func loadingSlot(of slice: Int) -> Int? { index.value(for: slice).map { Int($0) } }

    func isLoading(_ slice: Int) -> Bool { index.value(for: slice).map { !slots[Int($0)].isReady } ?? false }

    var isLoadingAny: Bool { slots.contains { $0.slice >= 0 && !$0.isReady } }

    /// Room for some reads ahead.
    private static let mostPassed = 4 * longestReadAhead

    private mutating func takePassedSlot() -> Int? {
        // A small cache is best used as a whole.
        if capacity < Self.mostPassed * 8 { return takeSlot() }
        if passedSlots.count < Self.mostPassed {
            guard let slot = takeSlot() else { return nil }
            passedSlots.append(slot)
            return slot
        }
        let place = oldestPassed
        oldestPassed = place + 1 == passedSlots.count ? 0 : place + 1
        if !vacate(passedSlots[place]) {
            guard let other = takeSlot() else { return nil }
            passedSlots[place] = other
        }
        return passedSlots[place]
    }

    /// Empties a slot, unless what is there is needed.
    private mutating func vacate(_ slot: Int) -> Bool {
        if slots[slot].slice < 0 { return true }
        if slots[slot].isDirty || !slots[slot].isReady { return false }
        index.remove(slots[slot].slice)
        slots[slot].slice = -1
        return true
    }

    private mutating func takeSlot() -> Int? {
        if slots.count < capacity {
            slots.append(Slot(slice: -1))
            entries.append(contentsOf: repeatElement(0, count: wordsPerSlice))
            return slots.count - 1
        }
        for _ in 0..<(2 * slots.count) {
            let slot = hand
            hand = hand + 1 == slots.count ? 0 : hand + 1
            if slots[slot].isRecent, slots[slot].slice >= 0, !slots[slot].isDirty, slots[slot].isReady {
                slots[slot].isRecent = false
                continue
            }
            if vacate(slot) { return slot }
        }
        return nil
    }

    /// Takes in what was read.
    /// - Parameter bytes: the slice as on disk; nil when it is known to hold nothing.
    mutating func finishLoad(_ slot: Int, _ bytes: RawSpan) {
        let start = slot << (sliceBits + wordBits)
        let count = wordsPerSlice
        var words = entries.mutableSpan
        for position in 0..<count { words[start &+ position] = bytes.checkedBigEndian(at: position &* 8) }
        slots[slot].isReady = true
        slots[slot].isRecent = true
        slots[slot].isDirty = false
    }

    mutating func abandonLoad(_ slot: Int) {
        index.remove(slots[slot].slice)
        slots[slot].slice = -1
    }

    // MARK: Writing back

    /// The slots that hold changes, in guest order, which is the order on disk.
    func dirtySlots() -> [Int] {
        slots.indices.filter { slots[$0].isDirty }.sorted { slots[$0].slice < slots[$1].slice }
    }

    func slice(in slot: Int) -> Int { slots[slot].slice }
    func isDirty(_ slot: Int) -> Bool { slots[slot].isDirty }
    func version(of slot: Int) -> UInt32 { slots[slot].version }

    /// Copies a slice as it goes to disk.
    func encode(_ slot: Int, into bytes: inout MutableRawSpan, at offset: Int) {
        let start = slot << (sliceBits + wordBits)
        for position in 0..<wordsPerSlice { bytes.setBigEndian(entries[start + position], at: offset + position * 8) }
    }

    /// The slice is on its way to stable storage as it was at `version`; if it has changed since, it stays dirty.
    mutating func written(_ slot: Int, version: UInt32) {
        guard slots[slot].isDirty, slots[slot].version == version else { return }
        slots[slot].isDirty = false
        dirtyCount -= 1
    }

    /// After a failed flush nobody knows what reached the disk: everything that is here is written again.
    mutating func markAllDirty() {
        for slot in slots.indices where slots[slot].slice >= 0 && slots[slot].isReady && !slots[slot].isDirty {
            slots[slot].isDirty = true
            dirtyCount += 1
        }
    }
}
