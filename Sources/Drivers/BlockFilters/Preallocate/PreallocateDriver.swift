package import BlockGraph
package import IOCore
package import StorageSchema
package import StrataBase
import Synchronization

/// Makes a file grow in large steps (`driver=preallocate`): a write beyond the end reserves more than it needs, so that the next ones find their
/// space ready. What is too much is cut off when nobody writes any more, and when the node is closed.
///
/// Sits below a format and above a file. It has to be the only one that changes the file's size.
package final class PreallocateDriver: FilterDriver {
    package static let formatName = "preallocate"

    package let file: BlockChild
    /// How much is reserved.
    private struct Step: Sendable {
        /// Bytes: where reservations end at multiples of, and how much they reach beyond what is written.
        var alignment: Int
        var extra: Int

        init(_ own: BlockdevOptionsPreallocate) throws(BlockError) {
            let alignment = own.preallocAlign ?? 1 << 20
            extra = own.preallocSize ?? 128 << 20
            for (name, value) in [("prealloc-align", alignment), ("prealloc-size", extra)] where value < 0 {
                throw BlockError(.invalidArgument, "Value '\(value)' is out of range for parameter '\(name)'")
            }
            guard alignment.isAligned(to: 512) else {
                throw BlockError(.invalidArgument, "prealloc-align parameter of preallocate filter is not aligned to 512")
            }
            self.alignment = max(alignment, 1)
        }
    }

    private struct Settings: Sendable {
        var current: Step
        /// What a reopen prepares.
        var candidate: Step?
    }

    private let settings: Mutex<Settings>

    private struct State: Sendable {
        /// The end of the file for our parents, in bytes; nil while the file itself tells it.
        var dataEnd: Int?
        /// The end of the file with what is reserved.
        var fileEnd = 0
        /// From here on up to `fileEnd` there is nothing but zeroes.
        var zeroStart = 0
        /// The file below has no way to reserve: writes go there as they come.
        var isHopeless = false
    }

    private let state = Mutex(State())
    /// Held while space is reserved or given back. Rank: below a format's metadata locks.
    private let reserving = AsyncMutex()

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .preallocate(let own) = options.branch else { throw BlockError(.invalidArgument, "options of another driver were given to 'preallocate'") }
        let step = try Step(own)
        let file = try await opener.openChild(own.file, as: "file", role: [.filtered, .primary])
        return PreallocateDriver(file, step)
    }

    private init(_ file: BlockChild, _ step: Step) {
        self.file = file
        settings = Mutex(Settings(current: step))
    }

    package func permissions(for role: ChildRole, parents: PermissionGrant, isReadOnly: Bool) -> PermissionGrant {
        var grant = parents
        if !grant.used.isDisjoint(with: [.write, .resize]) {
            grant.used.formUnion([.write, .resize])
            // Others would see, and could cut off, what is only reserved.
            grant.shared.subtract([.write, .resize])
        }
        return grant
    }

    package var length: Int { state.withLock { $0.dataEnd } ?? file.length }

    /// Whole sectors, as the file below counts.
    private static let sector = 512

    // MARK: Reading: nothing beyond our own end

    package func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool { file.tryRead(target, at: offset) }

    package func tryBlockStatus(of range: GuestRange, precise: Bool) -> BlockStatus? { nil }

    package func blockStatus(of range: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus {
        let inside = min(range.byteCount, file.length - range.start.rawValue)
        guard inside > 0 else { return BlockStatus(byteCount: range.byteCount, flags: [.zero, .allocated]) }
        var status = try await file.blockStatus(of: GuestRange(range.start, byteCount: inside), precise: precise)
        status.flags.remove(.endOfFile)
        return status
    }

    // MARK: Writing

    package func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool {
        // Inside what is ours already there is nothing to do but to write.
        let end = (offset + source.byteCount).rawValue
        let isInside = state.withLock { state in
            guard let dataEnd = state.dataEnd, end <= dataEnd else { return false }
            state.zeroStart = max(state.zeroStart, end)
            return true
        }
        return isInside && file.tryWrite(source, at: offset, flags: flags)
    }

    package func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        let end = (offset + source.byteCount).rawValue
        await reserve(upTo: end)
        state.withLock { $0.zeroStart = max($0.zeroStart, end) }
        try await file.write(source, at: offset, flags: flags.subtracting(.alreadyTried))
        grow(to: end)
    }

    package func writeZeroes(_ range: GuestRange, flags: RequestFlags) async throws(BlockError) -> Support {
        let end = range.end.rawValue
        await reserve(upTo: end)
        // What was reserved and never written is zero already, on the disk and not only in memory.
        let isZeroAlready = state.withLock { !$0.isHopeless && range.start.rawValue >= $0.zeroStart && end <= $0.fileEnd }
        if !isZeroAlready {
            state.withLock { $0.zeroStart = max($0.zeroStart, end) }
            try await file.writeZeroes(range, flags: flags)
        } else if flags.contains(.forceUnitAccess) {
            try await file.flush()
        }
        grow(to: end)
        return .done
    }

    package func resize(to byteCount: Int, exact: Bool, preallocation: PreallocMode) async throws(BlockError) {
        // Growing ahead of need is what we are for.
        if !exact, preallocation == .off, byteCount > length {
            await reserve(upTo: byteCount)
            let isReserved = state.withLock { state in
                guard let dataEnd = state.dataEnd, byteCount <= state.fileEnd else { return false }
                state.dataEnd = max(dataEnd, byteCount.roundedUp(to: Self.sector))
                return true
            }
            if isReserved { return }
        }
        try await reserving.withLock { () async throws(BlockError) in
            try await file.resize(to: byteCount, exact: exact, preallocation: preallocation)
            state.withLock { state in
                if state.dataEnd == nil { return }
                state.dataEnd = file.length
                state.fileEnd = file.length
                state.zeroStart = file.length
            }
        }
    }

    private func grow(to end: Int) {
        state.withLock { state in
            guard let dataEnd = state.dataEnd, end > dataEnd else { return }
            state.dataEnd = end.roundedUp(to: Self.sector)
        }
    }

    /// Sees to it that the file reaches beyond `end` before something is written there. That it does not work is no error: the write itself
    /// finds out whether there is space.
    private func reserve(upTo end: Int) async {
        let isReady = state.withLock { state in
            guard let dataEnd = state.dataEnd else { return false }
            return end <= dataEnd || end <= state.fileEnd || state.isHopeless
        }
        if isReady { return }
        await reserving.withLock { () async in
            let from = state.withLock { state -> Int? in
                if state.dataEnd == nil {
                    let length = file.length
                    state = State(dataEnd: length, fileEnd: length, zeroStart: length)
                }
                return end <= state.fileEnd || state.isHopeless ? nil : state.fileEnd
            }
            guard let from else { return }
            let step = settings.withLock { $0.current }
            let (sum, overflow) = end.addingReportingOverflow(step.extra)
            let (rounded, overflowAgain) = sum.dividedRoundingUp(by: step.alignment).multipliedReportingOverflow(by: step.alignment)
            guard !overflow, !overflowAgain else { return }
            var works = true
            Trace.preallocateReserveBegin(offset: from, bytes: rounded - from)
            defer { Trace.preallocateReserveEnd(offset: from, bytes: rounded - from) }
            do throws(BlockError) {
                try await file.writeZeroes(GuestRange(GuestOffset(from), byteCount: rounded - from), flags: .noFallback)
            } catch {
                works = false
            }
            state.withLock { [works] state in
                state.fileEnd = works ? rounded : max(from, file.length)
                state.isHopeless = !works
            }
        }
    }

    // MARK: Reopening

    package static var changeableOptions: Set<String> { ["prealloc-align", "prealloc-size"] }

    package func stageReopen(_ request: ReopenRequest) throws(BlockError) {
        guard case .preallocate(let own) = request.options.branch else {
            throw BlockError(.invalidArgument, "options of another driver were given to 'preallocate'")
        }
        let step = try Step(own)
        settings.withLock { $0.candidate = step }
    }

    package func commitReopen() async {
        settings.withLock { settings in
            if let step = settings.candidate { settings.current = step }
            settings.candidate = nil
        }
    }

    package func abortReopen() async { settings.withLock { $0.candidate = nil } }

    // MARK: Giving back

    package func preparePermissions(_ grant: PermissionGrant) async throws(BlockError) {
        // Still with the permissions of before. If somebody else refuses the change, nothing is lost but a reservation.
        if grant.used.isDisjoint(with: [.write, .resize]) { try await giveBack() }
    }

    package func close() async throws(BlockError) { try await giveBack() }

    /// Cuts off what is reserved and was not written to.
    private func giveBack() async throws(BlockError) {
        try await reserving.withLock { () async throws(BlockError) in
            if let end = state.withLock({ $0.dataEnd }), end < file.length, file.permissions.contains(.resize) { try await file.resize(to: end) }
            // Only now: as long as the reservation is there, we alone know where the data end.
            state.withLock { $0 = State() }
        }
    }
}
