import StrataBase

/// Refcount blocks in memory, replaced by the clock algorithm, written back later. A value inside the image's `Mutex`; it does no I/O.
///
/// A refcount block may go to disk at any time: counts only rise before somebody refers to the cluster, and only fall after the last
/// reference is off the disk (`MetadataCommit`).
struct RefcountCache: Sendable {
    private struct Slot {
        /// Position in the refcount table, -1 for none.
        var blockIndex: Int
        var block: RefcountBlock
        var version: UInt32 = 0
        var isDirty = false
        var isRecent = false
    }

    private var slots: [Slot] = []
    private var index = IntTable()
    private var hand = 0
    private(set) var dirtyCount = 0
    private(set) var capacity: Int

    init(capacity: Int) { self.capacity = capacity }

    mutating func grow(toCapacity wanted: Int) { capacity = max(capacity, wanted) }

    var slotCount: Int { slots.count }

    /// See `L2SliceCache.takeIdleness`.
    mutating func takeIdleness() -> Bool {
        var isIdle = dirtyCount == 0
        for slot in slots.indices {
            if slots[slot].isRecent { isIdle = false }
            slots[slot].isRecent = false
        }
        return isIdle && !slots.isEmpty
    }

    mutating func slot(of blockIndex: Int) -> Int? {
        guard let found = index.value(for: blockIndex) else { return nil }
        slots[Int(found)].isRecent = true
        return Int(found)
    }

    func block(_ slot: Int) -> RefcountBlock { slots[slot].block }
    func refcount(_ slot: Int, _ position: Int) -> UInt64 { slots[slot].block[position] }
    func firstFree(_ slot: Int, from position: Int) -> Int? { slots[slot].block.firstFree(from: position) }
    func freeRun(_ slot: Int, from position: Int, limit: Int) -> Int { slots[slot].block.freeRun(from: position, limit: limit) }

    mutating func set(_ refcount: UInt64, _ slot: Int, _ position: Int) {
        slots[slot].block[position] = refcount
        touch(slot)
    }

    mutating func set(_ refcount: UInt64, _ slot: Int, _ positions: Range<Int>) {
        for position in positions { slots[slot].block[position] = refcount }
        touch(slot)
    }

    private mutating func touch(_ slot: Int) {
        slots[slot].version &+= 1
        if !slots[slot].isDirty {
            slots[slot].isDirty = true
            dirtyCount += 1
        }
    }

    /// Puts a block in.
    /// - Returns: its slot, or nil when every slot is dirty.
    mutating func insert(_ block: RefcountBlock, at blockIndex: Int, isDirty: Bool) -> Int? {
        guard let slot = takeSlot(for: block) else { return nil }
        slots[slot] = Slot(blockIndex: blockIndex, block: block)
        slots[slot].isRecent = true
        index.insert(blockIndex, Int32(truncatingIfNeeded: slot))
        if isDirty { touch(slot) }
        return slot
    }

    /// Whether `insert` would find a slot other than this one.
    func hasRoom(besides slot: Int) -> Bool { slots.count < capacity || dirtyCount + (slots[slot].isDirty ? 0 : 1) < slots.count }

    private mutating func takeSlot(for block: RefcountBlock) -> Int? {
        if slots.count < capacity {
            slots.append(Slot(blockIndex: -1, block: block))
            return slots.count - 1
        }
        for _ in 0..<(2 * slots.count) {
            let slot = hand
            hand = hand + 1 == slots.count ? 0 : hand + 1
            if slots[slot].isDirty { continue }
            if slots[slot].isRecent {
                slots[slot].isRecent = false
                continue
            }
            index.remove(slots[slot].blockIndex)
            return slot
        }
        return nil
    }

    /// A block as it is now, to be written.
    struct Snapshot: Sendable {
        let slot: Int
        let blockIndex: Int
        let version: UInt32
        let bytes: [UInt8]
    }

    func dirtySlots() -> [Int] { slots.indices.filter { slots[$0].isDirty } }

    func snapshot(_ slot: Int) -> Snapshot? {
        guard slots[slot].isDirty else { return nil }
        return Snapshot(slot: slot, blockIndex: slots[slot].blockIndex, version: slots[slot].version, bytes: slots[slot].block.bytes)
    }

    mutating func written(_ snapshot: Snapshot) {
        let slot = snapshot.slot
        guard slots[slot].isDirty, slots[slot].blockIndex == snapshot.blockIndex, slots[slot].version == snapshot.version else { return }
        slots[slot].isDirty = false
        dirtyCount -= 1
    }

    /// See `L2SliceCache.markAllDirty`.
    mutating func markAllDirty() { for slot in slots.indices where slots[slot].blockIndex >= 0 { touch(slot) } }
}
