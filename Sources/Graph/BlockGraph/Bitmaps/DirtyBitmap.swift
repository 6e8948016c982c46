package import StrataBase
import Synchronization

/// Notes which parts of a node are written: a named bitmap that users see, or an anonymous tracker of a job.
///
/// Any thread may call everything at any time, nothing suspends. A write is noted when it is over, whether it has succeeded or not; so whoever
/// clears a part and reads it afterwards sees a write that is still under way again as a mark.
///
/// For the time of a backup a bitmap is frozen: it stays as it is, and a successor notes what is written meanwhile. Afterwards the two become
/// one again: `abdicate` keeps what the successor has, `reclaim` what either has.
package final class DirtyBitmap: Sendable {
    /// The longest name, in bytes of UTF-8.
    package static let maximumNameLength = 1023

    /// Nil for a tracker that nobody refers to.
    package let name: String?
    /// How many bytes one bit stands for.
    package let granularity: Int
    private let state: Mutex<State>

    private struct State: Sendable {
        /// What writes are noted in.
        var bits: HierarchicalBitmap
        var isEnabled: Bool
        /// What everybody else sees while there is a successor, whose bits are those above then.
        var frozen: HierarchicalBitmap?
        var isBusy = false
        var isPersistent = false
        var isReadOnly = false
        var isInconsistent = false
        var isRetired = false

        var visible: HierarchicalBitmap { frozen ?? bits }

        mutating func edit<Result>(_ body: (inout HierarchicalBitmap) -> Result) -> Result {
            guard var bits = frozen.take() else { return body(&bits) }
            defer { frozen = bits }
            return body(&bits)
        }

        mutating func note(_ range: GuestRange) { if isEnabled { bits.set(range) } }
    }

    package init(name: String?, bits: HierarchicalBitmap, isEnabled: Bool = true, isPersistent: Bool = false, isReadOnly: Bool = false, isInconsistent: Bool = false) {
        self.name = name
        granularity = bits.granularity
        state = Mutex(State(bits: bits, isEnabled: isEnabled, isPersistent: isPersistent, isReadOnly: isReadOnly, isInconsistent: isInconsistent))
    }

    // MARK: Noting writes

    /// Notes a write. A write beyond the end has made the disk grow.
    func note(_ range: GuestRange) {
        state.withLock { state in
            if range.end.rawValue > state.bits.byteCount { Self.resize(&state, to: range.end.rawValue) }
            state.note(range)
        }
    }

    /// Follows the disk's size. What is added counts as written: it may have held something else before the disk became smaller.
    func noteSize(_ byteCount: Int) {
        state.withLock { state in Self.resize(&state, to: byteCount) }
    }

    private static func resize(_ state: inout State, to byteCount: Int) {
        let old = state.bits.byteCount
        if byteCount == old { return }
        do {
            try state.bits.resize(to: byteCount)
            try state.frozen?.resize(to: byteCount)
        } catch {
            // Too large for this granularity: what cannot be noted must not be believed.
            state.isInconsistent = true
            return
        }
        if byteCount > old { state.note(GuestRange(GuestOffset(old), byteCount: byteCount - old)) }
    }

    // MARK: What is dirty

    /// A copy of the bits as they are now.
    package var bits: HierarchicalBitmap { state.withLock { $0.visible } }

    /// Looks at the bits or changes them in one step. Runs under a lock that writers wait for: be brief.
    package func withBits<Result: Sendable>(_ body: (inout HierarchicalBitmap) -> Result) -> Result {
        state.withLock { state in state.edit(body) }
    }

    /// The size of the disk.
    package var byteCount: Int { state.withLock { $0.bits.byteCount } }
    package var dirtyByteCount: Int { state.withLock { $0.visible.dirtyByteCount } }
    package func set(_ range: GuestRange) { withBits { $0.set(range) } }
    package func clear(_ range: GuestRange) { withBits { $0.clear(range) } }

    /// Whether a range begins dirty or clean, and how long it stays so. Beyond the bitmap's end everything is clean.
    /// - Precondition: the range is not empty.
    package func run(in range: GuestRange) -> (isDirty: Bool, byteCount: Int) {
        state.withLock { state in
            let bits = state.visible
            let inside = min(range.byteCount, bits.byteCount - range.start.rawValue)
            return inside <= 0 ? (false, range.byteCount) : bits.run(in: GuestRange(range.start, byteCount: inside))
        }
    }

    /// Finds the first dirty run in a range, and clears it. What a loop that copies does: a write that comes meanwhile marks it again.
    /// - Parameters:
    ///   - range: begins at a multiple of the granularity, and ends at one or at the end of the disk.
    ///   - limit: the longest run, in bytes; taken as a multiple of the granularity.
    package func takeNextDirtyRange(in range: GuestRange, limit: Int = .max) -> GuestRange? {
        precondition(range.start.isAligned(to: granularity), "whole granules are taken")
        let limit = max(granularity, limit.roundedDown(to: granularity))
        return withBits { bits in
            guard let run = bits.nextDirtyRange(in: range, limit: limit) else { return nil }
            bits.clear(run)
            return run
        }
    }

    /// Marks what another bitmap of a disk of the same size has marked.
    /// - Throws: `.invalidArgument` for another size.
    package func merge(_ other: HierarchicalBitmap) throws(BlockError) {
        let ownSize = withBits { bits -> Int? in
            guard bits.byteCount == other.byteCount else { return bits.byteCount }
            bits.merge(other)
            return nil
        }
        guard let ownSize else { return }
        throw BlockError(
            .invalidArgument,
            "Bitmaps are of different sizes (destination size is \(ownSize), source size is \(other.byteCount)) and can't be merged")
    }

    /// Nothing is dirty any more. The bits as they were until then go to whoever may want them back (`restore`).
    @discardableResult
    package func clearAll() -> HierarchicalBitmap {
        withBits { bits in
            let old = bits
            bits.clearAll()
            return old
        }
    }

    /// Makes the bits what they were, for somebody who undoes what he did. Nothing may have been written meanwhile.
    package func restore(_ old: HierarchicalBitmap) { withBits { $0 = old } }

    /// Everything that may be dirty, whether a backup is under way or not: what must not be lost.
    package var everythingDirty: HierarchicalBitmap {
        state.withLock { state in
            guard var all = state.frozen else { return state.bits }
            all.merge(state.bits)
            return all
        }
    }

    // MARK: What it does

    /// Writes are noted, here or in the successor.
    package var isRecording: Bool { state.withLock { $0.isEnabled } }
    package func enable() { state.withLock { $0.isEnabled = true } }
    package func disable() { state.withLock { $0.isEnabled = false } }

    /// Somebody uses it, who would not bear that others change it.
    package var isBusy: Bool { state.withLock { $0.isBusy } }
    /// Says that somebody uses it from now on, or no longer does.
    package func setBusy(_ isBusy: Bool) { state.withLock { $0.isBusy = isBusy } }

    /// It is kept in the node's image.
    package var isPersistent: Bool { state.withLock { $0.isPersistent } }
    /// The image that it comes from cannot be written to at the moment.
    package var isReadOnly: Bool { state.withLock { $0.isReadOnly } }
    package func setReadOnly(_ isReadOnly: Bool) { state.withLock { $0.isReadOnly = isReadOnly } }
    /// Writes may have been missed: it is good for nothing but to be removed.
    package var isInconsistent: Bool { state.withLock { $0.isInconsistent } }
    /// It is about to be removed, and not stored any more.
    package var isRetired: Bool { state.withLock { $0.isRetired } }
    package func setRetired(_ isRetired: Bool) { state.withLock { $0.isRetired = isRetired } }

    // MARK: Successors

    /// Keeps the bits as they are; a successor notes writes from now on. Busy until `abdicate` or `reclaim`.
    /// - Throws: `.permissionConflict` while it is busy already.
    package func freeze() throws(BlockError) {
        let isFrozen = state.withLock { state in
            if state.isBusy { return false }
            state.frozen = state.bits
            state.bits.clearAll()
            state.isBusy = true
            return true
        }
        if !isFrozen { throw busyError }
    }

    /// The frozen bits have served: only what was written since counts.
    package func abdicate() { endFreeze { _, _ in } }

    /// The frozen bits are still needed: they count, and what was written since.
    package func reclaim() { endFreeze { bits, frozen in bits.merge(frozen) } }

    private func endFreeze(_ combine: (_ bits: inout HierarchicalBitmap, _ frozen: HierarchicalBitmap) -> Void) {
        state.withLock { state in
            guard let frozen = state.frozen.take() else { preconditionFailure("a bitmap is frozen before it is unfrozen") }
            combine(&state.bits, frozen)
            state.isBusy = false
        }
    }

    // MARK: Refusals

    /// What may stand in the way of using a bitmap.
    package struct Obstacles: OptionSet, Sendable, Hashable {
        package let rawValue: UInt8
        package init(rawValue: UInt8) { self.rawValue = rawValue }
        package static let busy = Obstacles(rawValue: 1 << 0)
        package static let readOnly = Obstacles(rawValue: 1 << 1)
        package static let inconsistent = Obstacles(rawValue: 1 << 2)
        /// For whoever changes it.
        package static let all: Obstacles = [.busy, .readOnly, .inconsistent]
        /// For whoever only reads it.
        package static let forReading: Obstacles = [.busy, .inconsistent]
    }

    /// - Throws: the first of the obstacles that there is, in QEMU's words.
    package func check(_ obstacles: Obstacles) throws(BlockError) {
        let (isBusy, isReadOnly, isInconsistent) = state.withLock { ($0.isBusy, $0.isReadOnly, $0.isInconsistent) }
        if isBusy, obstacles.contains(.busy) { throw busyError }
        if isReadOnly, obstacles.contains(.readOnly) { throw BlockError(.readOnly, "Bitmap '\(name ?? "")' is readonly and cannot be modified") }
        if isInconsistent, obstacles.contains(.inconsistent) {
            throw BlockError(
                .corruptImage, "Bitmap '\(name ?? "")' is inconsistent and cannot be used",
                hint: "Try block-dirty-bitmap-remove to delete this bitmap from disk")
        }
    }

    private var busyError: BlockError {
        BlockError(.permissionConflict, "Bitmap '\(name ?? "")' is currently in use by another operation and cannot be used")
    }
}
