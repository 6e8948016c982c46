package import BlockGraph
import IOCore
package import StorageSchema
package import StrataBase
import Synchronization

// Zeroes, discards, sizes, and what lies where in the file.

extension FileDriver: ZeroWriting, Discarding, Resizing, StatusReporting {
    package func writeZeroes(_ range: GuestRange, flags: RequestFlags) async throws(BlockError) -> Support {
        let outcome = try await zero(range, flags)
        if outcome == .done, flags.contains(.forceUnitAccess) { try await flush() }
        return outcome
    }

    private func zero(_ range: GuestRange, _ flags: RequestFlags) async throws(BlockError) -> Support {
        Trace.fileZeroesBegin(path: path, offset: range.start.rawValue, bytes: range.byteCount, mayUnmap: flags.contains(.mayUnmap))
        defer { Trace.fileZeroesEnd(path: path, offset: range.start.rawValue, bytes: range.byteCount) }
        defer { forgetKnownData() }
        let fileSize = try file.status().size
        if range.start.rawValue >= fileSize, file.isRegularFile, flags.contains(.mayUnmap) {
            // Beyond the end there is nothing to punch: growing is zeroing. The file grows by its last byte and not by setting its size, which
            // would cut off what somebody else writes further on in the meantime.
            let last = IOBuffer(zeroed: 1)
            defer { withExtendedLifetime(last) {} }
            try await file.write(last.vector, at: (range.end - 1).asHost)
            grow(to: range.end)
            return .done
        }
        var outcome = HostFile.SpaceOutcome.unsupported
        if flags.contains(.mayUnmap), range.end.rawValue <= fileSize { outcome = try await file.punchHole(at: range.start.asHost, byteCount: range.byteCount) }
        if outcome == .unsupported { outcome = try await file.zeroRange(at: range.start.asHost, byteCount: range.byteCount) }
        if outcome == .unsupported { Trace.fileZeroesFallback(path: path, refused: "zeroed ranges") }
        // Some file systems (tmpfs) know holes but not zeroed ranges: a hole with its space reserved again is the same to a reader.
        if outcome == .unsupported, range.end.rawValue <= fileSize {
            outcome = try await file.punchHole(at: range.start.asHost, byteCount: range.byteCount)
            if outcome == .done { _ = try await file.allocate(at: range.start.asHost, byteCount: range.byteCount) }
        }
        if outcome == .unsupported, file.isBlockDevice { outcome = try await file.zeroDevice(at: range.start.asHost, byteCount: range.byteCount) }
        if outcome == .unsupported {
            Trace.fileZeroesFallback(path: path, refused: "holes")
            return .unsupported
        }
        grow(to: range.end)
        return .done
    }

    package func discard(_ range: GuestRange) async throws(BlockError) -> Support {
        Trace.fileDiscardBegin(path: path, offset: range.start.rawValue, bytes: range.byteCount)
        defer { Trace.fileDiscardEnd(path: path, offset: range.start.rawValue, bytes: range.byteCount) }
        defer { forgetKnownData() }
        let outcome =
            file.isBlockDevice
            ? try await file.discardDevice(at: range.start.asHost, byteCount: range.byteCount)
            : try await file.punchHole(at: range.start.asHost, byteCount: range.byteCount)
        return outcome == .done ? .done : .unsupported
    }

    /// A file that gets a size has its first block on the disk, as QEMU's have: whoever opens it with O_DIRECT finds out the unit of requests by reading there, and
    /// a hole takes any. A service: nothing is wrong where it fails.
    private func allocateFirstBlock(_ byteCount: Int) async {
        let zeroes = IOBuffer(zeroed: byteCount < 4096 ? min(byteCount, Self.sector) : 4096)
        defer { withExtendedLifetime(zeroes) {} }
        if zeroes.byteCount == 0 || file.tryWrite(zeroes.vector, at: HostOffset(0)) { return }
        do throws(BlockError) { try await file.write(zeroes.vector, at: HostOffset(0)) } catch {}
    }

    /// To be called when what was data may have become a hole.
    func forgetKnownData() { knownData.withLock { $0 = 0..<0 } }

    package func resize(to byteCount: Int, exact: Bool, preallocation: PreallocMode) async throws(BlockError) {
        defer { forgetKnownData() }
        let old = try file.status().size
        guard file.isRegularFile else {
            if exact, byteCount != old { throw BlockError(.unsupported, "Cannot resize device files") }
            if byteCount > old { throw BlockError(.unsupported, "Cannot grow device files") }
            return
        }
        switch preallocation {
        case .off:
            try await file.setSize(byteCount)
            if old == 0 { await allocateFirstBlock(byteCount) }
        case .metadata: throw BlockError(.unsupported, "Unsupported preallocation mode: metadata")
        case .falloc, .full:
            guard byteCount >= old else { throw BlockError(.invalidArgument, "Preallocation cannot be used for shrinking '\(path)'") }
            do throws(BlockError) {
                var reserved = HostFile.SpaceOutcome.unsupported
                if preallocation == .falloc { reserved = try await file.allocate(at: HostOffset(old), byteCount: byteCount - old) }
                if reserved == .unsupported { try await writeZeroData(from: old, to: byteCount) }
            } catch {
                // A failed operation leaves things as they were.
                try await file.setSize(old)
                throw error
            }
        }
        size.store(byteCount.roundedUp(to: Self.sector), ordering: .relaxed)
    }

    private func writeZeroData(from start: Int, to end: Int) async throws(BlockError) {
        let buffer = IOBuffer(zeroed: min(1 << 20, max(end - start, 1)))
        defer { withExtendedLifetime(buffer) {} }
        var position = start
        while position < end {
            let count = min(buffer.byteCount, end - position)
            try await file.write(buffer.vector(at: 0, byteCount: count), at: HostOffset(position))
            position += count
        }
    }

    package func tryBlockStatus(of range: GuestRange, precise: Bool) -> BlockStatus? {
        // Without the question about zeroes everything in a file counts as data, which needs no look.
        precise ? nil : status(range, .init([.data, .allocated, .offsetValid]), range.byteCount)
    }

    package func blockStatus(of range: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus {
        guard precise else { return status(range, [.data, .allocated, .offsetValid], range.byteCount) }
        let start = range.start.rawValue
        let known = knownData.withLock { $0 }
        if known.contains(start) {
            return status(range, [.data, .allocated, .offsetValid], min(known.upperBound - start, range.byteCount))
        }
        guard let extent = try file.extent(at: range.start.asHost) else {
            // Between the file's end and the size rounded up.
            return status(range, [.zero, .allocated, .offsetValid], range.byteCount)
        }
        if extent.isData { knownData.withLock { $0 = start..<start + extent.byteCount } }
        let flags: BlockStatus.Flags = extent.isData ? [.data, .allocated, .offsetValid] : [.zero, .allocated, .offsetValid]
        return status(range, flags, min(extent.byteCount, range.byteCount))
    }

    private func status(_ range: GuestRange, _ flags: BlockStatus.Flags, _ byteCount: Int) -> BlockStatus {
        BlockStatus(byteCount: byteCount, flags: flags, offset: range.start.asHost)
    }
}
