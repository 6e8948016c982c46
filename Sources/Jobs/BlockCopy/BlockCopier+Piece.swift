import BlockGraph
package import IOCore
import StrataBase
import Synchronization

// What is done with one piece: zeroes are left out or written as such, data is read and written.

extension BlockCopier {
    /// Copies one piece, on the caller's context. The caller is inside the gates.
    /// - Parameter buffer: memory that is kept from piece to piece; made when it is needed first.
    package func copy(_ piece: CopyPiece, _ buffer: inout IOBuffer?) async throws(CopyFailure) -> CopyTally {
        var tally = CopyTally()
        tally.finished = piece.range.count
        var position = piece.range.lowerBound
        let pieceEnd = piece.range.upperBound
        var hasTurn = order == nil
        while position < pieceEnd {
            let run = try await status(at: position, limit: pieceEnd)
            let isNothing = run.kind == .nothing || (run.kind == .zero && settings.targetIsZero && settings.sparseUnit > 0)
            var end = wholeUnits(upTo: min(run.range.upperBound, pieceEnd))
            // A unit of several runs is written as a whole, also the parts that would not have to be.
            let isMixed = end <= position
            if isMixed { end = min(position + unit, pieceEnd) }
            if isNothing, !isMixed {
                let next = wholeUnits(upTo: run.range.upperBound)
                if next > pieceEnd { tally.finished += work.skip(pieceEnd..<next) }
                position = end
                continue
            }
            if run.kind == .zero && settings.sparseUnit > 0 && !isMixed {
                if !hasTurn { await order?.waitForTurn(of: piece.number) }
                hasTurn = true
                try await writeZeroes(position..<end)
            } else if run.kind == .data, !isMixed, copiesRanges.load(ordering: .relaxed), try await copyRange(position..<end) {
                // The kernel has done it.
            } else {
                end = min(end, position + settings.pieceSize.roundedUp(to: unit))
                let memory = buffer ?? IOBuffer(byteCount: max(settings.pieceSize.roundedUp(to: unit), unit))
                buffer = memory
                let data = memory.vector(at: 0, byteCount: end - position)
                if isMixed {
                    try await readMixed(data, at: position)
                } else if run.kind == .zero {
                    data.zero()
                } else {
                    try await read(data, at: position)
                }
                if !hasTurn { await order?.waitForTurn(of: piece.number) }
                hasTurn = true
                try await write(data, at: position, mayBeZero: run.kind == .data || (isMixed && settings.sparseUnit > 0))
                withExtendedLifetime(memory) {}
            }
            tally.moved += end - position
            position = end
        }
        return tally
    }

    /// Lets the kernel copy, and remembers when it does not.
    private func copyRange(_ range: Range<Int>) async throws(CopyFailure) -> Bool {
        do throws(BlockError) {
            if try await source.copyRange(range, to: target, flags: rangeFlags) == .done { return true }
        } catch {
            throw CopyFailure(error.during("error while copying at byte \(range.lowerBound)"), range, isRead: false)
        }
        copiesRanges.store(false, ordering: .relaxed)
        return false
    }

    /// Where the last whole unit before `position` ends. The last one of all ends with the source.
    private func wholeUnits(upTo position: Int) -> Int {
        unit == 1 || position >= source.length ? position : position / unit * unit
    }

    // MARK: Reading

    private func status(at position: Int, limit: Int) async throws(CopyFailure) -> CopyRun {
        do throws(BlockError) {
            if let runs { return try await runs.run(at: position) }
            return try await source.run(at: position, limit: limit)
        } catch {
            throw CopyFailure(error.during("error while reading block status at offset \(position)"), position..<limit, isRead: true)
        }
    }

    /// Reads what several runs have.
    private func readMixed(_ data: IOVector, at start: Int) async throws(CopyFailure) {
        var done = 0
        while done < data.byteCount {
            let run = try await status(at: start + done, limit: start + data.byteCount)
            let count = min(run.range.upperBound - start - done, data.byteCount - done)
            let part = data.slice(at: done, byteCount: count)
            if run.kind == .zero { part.zero() } else { try await read(part, at: start + done) }
            done += count
        }
    }

    private func read(_ data: IOVector, at position: Int) async throws(CopyFailure) {
        if source.tryRead(data, at: position) { return }
        do throws(BlockError) {
            try await source.read(data, at: position)
        } catch {
            throw CopyFailure(error.during("error while reading at byte \(position)"), position..<position + data.byteCount, isRead: true)
        }
    }

    // MARK: Writing

    private func write(_ data: IOVector, at position: Int, mayBeZero: Bool) async throws(CopyFailure) {
        guard mayBeZero, scan.unit > 0 else { return try await writeData(data, at: position) }
        var start = 0
        while start < data.byteCount {
            let (count, isZero) = scan.run(of: data, from: start, at: position)
            if !isZero {
                try await writeData(data.slice(at: start, byteCount: count), at: position + start)
            } else if !settings.targetIsZero {
                try await writeZeroes(position + start..<position + start + count)
            }
            start += count
        }
    }

    private func writeData(_ data: IOVector, at position: Int) async throws(CopyFailure) {
        let end = position + data.byteCount
        let whole = end == target.length ? data.byteCount : data.byteCount / unit * unit
        if whole > 0 { try await writePart(data.slice(at: 0, byteCount: whole), at: position, dataFlags) }
        // An existing target can go on behind the source: then the end of the source is not the end of a unit.
        if whole < data.byteCount {
            try await writePart(data.slice(at: whole, byteCount: data.byteCount - whole), at: position + whole, settings.writeFlags)
        }
    }

    private func writePart(_ data: IOVector, at position: Int, _ flags: RequestFlags) async throws(CopyFailure) {
        if target.tryWrite(data, at: GuestOffset(position), flags: flags) { return }
        do throws(BlockError) {
            try await target.write(data, at: GuestOffset(position), flags: flags)
        } catch {
            throw CopyFailure(error.during("error while writing at byte \(position)"), position..<position + data.byteCount, isRead: false)
        }
    }

    private func writeZeroes(_ range: Range<Int>) async throws(CopyFailure) {
        do throws(BlockError) {
            guard settings.asksTarget else { return try await zero(range) }
            var position = range.lowerBound
            while position < range.upperBound {
                let inside = min(range.upperBound, target.length)
                // A target that is too short says so itself.
                guard position < inside else { return try await zero(position..<range.upperBound) }
                let rest = GuestRange(GuestOffset(position), byteCount: inside - position)
                let (status, _, node) = try await target.node.chainStatus(of: rest)
                let end = position + status.byteCount
                if !staysZero(status, node) { try await zero(position..<end) }
                position = end
            }
        } catch {
            throw CopyFailure(error.during("error while writing at byte \(range.lowerBound)"), range, isRead: false)
        }
    }

    /// Whether what reads as zero does so for good. An image that was opened without the backing file that it names, or gets one later, shows that
    /// file wherever it has nothing of its own.
    private func staysZero(_ status: BlockStatus, _ node: BlockNode) -> Bool {
        guard status.flags.contains(.zero) else { return false }
        return status.flags.contains(.allocated) || (!settings.targetGetsBacking && node.imageDescribing?.backingName == nil)
    }

    private func zero(_ range: Range<Int>) async throws(BlockError) {
        try await target.writeZeroes(GuestRange(GuestOffset(range.lowerBound), byteCount: range.count), flags: settings.zeroFlags)
    }
}
