import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import Synchronization

// Host clusters for a part of the disk before anybody writes there. What they hold reads as zeroes: the file has just grown over them, or zeroes are
// written. Subclusters stay unallocated, so that a backing file shows through clusters that are there already.

extension QCOW2Driver {
    /// Gives every guest cluster from `start` on a host cluster.
    /// - Parameters:
    ///   - start: bytes; so is `end`. Nothing is mapped from there on, or it is left alone.
    ///   - mode: not `off`.
    ///   - showsData: what a data file holds in the new clusters is the guest's, also where clusters are divided.
    func preallocate(from start: Int, to end: Int, _ mode: PreallocMode, showsData: Bool = false) async throws(BlockError) {
        try await prepareForWriting()
        let zeroes = mode == .full && !geometry.hasExternalData ? IOBuffer(zeroed: 1 << 20) : nil
        defer { withExtendedLifetime(zeroes) {} }
        var position = start.roundedUp(to: geometry.clusterSize)
        var hostEnd = 0
        // The rest of a cluster that the disk ends in so far: its data comes along.
        if start < min(position, end), !geometry.hasSubclusters { try await writeZeroBuffer(GuestRange(GuestOffset(start), byteCount: min(position, end) - start)) }
        // In one step what would be thousands on the way. Where that fails, the steps show whether less is enough.
        if position < end, !geometry.hasExternalData {
            let needed = state.withLock { $0.refcounts.virginFrom } << geometry.clusterBits + (end - position)
            do { try await growFile(to: needed) } catch {}
        }
        var rounds = 0
        while position < end {
            // Where files answer at once nothing here waits: others want their turns.
            rounds += 1
            if rounds.isMultiple(of: 64) { await Task.yield() }
            let guest = GuestOffset(position)
            let left = end.roundedUp(to: geometry.clusterSize) - position
            let plan = try await step { state throws(Obstacle) in try state.planWrite(at: guest, byteCount: left, inFlight) }
            switch plan {
            case .inPlace(_, let byteCount, let ticket):
                inFlight.leave(ticket)
                position += byteCount
            case .reserved(let reservation):
                let byteCount = reservation.clusterCount << geometry.clusterBits
                do throws(BlockError) {
                    try await place(reservation, mode, zeroes, showsData: showsData)
                } catch {
                    // What was written of it so far is nobody's: a full disk gets it back.
                    if !reservation.keepsHost, !geometry.hasExternalData {
                        do throws(BlockError) { try await file.discard(GuestRange(reservation.host.asGuest, byteCount: byteCount)) } catch {}
                    }
                    finish(reservation, state.withLock { $0.cancel(reservation) })
                    throw error.during("preallocating the image")
                }
                position += byteCount
                if !geometry.hasExternalData { hostEnd = max(hostEnd, reservation.host.rawValue + byteCount) }
            }
        }
        if file.length < hostEnd { try await file.resize(to: hostEnd) }
    }

    private func place(_ reservation: Reservation, _ mode: PreallocMode, _ zeroes: IOBuffer?, showsData: Bool) async throws(BlockError) {
        let byteCount = reservation.clusterCount << geometry.clusterBits
        if isEncrypted, !geometry.hasSubclusters, opened.header.version < 3 {
            // There is no other way to say that a cluster reads as zeroes than to write them.
            let zeroes = IOBuffer(zeroed: byteCount)
            defer { withExtendedLifetime(zeroes) {} }
            try await writeData(zeroes.vector, at: reservation.host, guest: reservation.guest)
            return finish(reservation, try await step { state throws(Obstacle) in try state.publish(reservation, written: GuestRange(reservation.guest, byteCount: byteCount)) })
        }
        // Divided clusters that were there before may hold data.
        if geometry.hasExternalData || (geometry.hasSubclusters && reservation.keepsHost) {
        } else if let zeroes {
            var done = 0
            while done < byteCount {
                let count = min(zeroes.byteCount, byteCount - done)
                try await file.write(zeroes.vector(at: 0, byteCount: count), at: (reservation.host + done).asGuest)
                done += count
            }
        } else if mode == .falloc || (!reservation.isKnownZero && !geometry.hasSubclusters) {
            try await file.writeZeroes(GuestRange(reservation.host.asGuest, byteCount: byteCount))
        }
        if isEncrypted, !geometry.hasSubclusters {
            // Nobody has encrypted what lies there.
            return finish(reservation, try await step { state throws(Obstacle) in try state.publishZeroes(reservation) })
        }
        let written = geometry.hasSubclusters && !showsData ? GuestRange(reservation.guest, byteCount: 0) : GuestRange(reservation.guest, byteCount: byteCount)
        finish(reservation, try await step { state throws(Obstacle) in try state.publish(reservation, written: written) })
    }

    /// Before a disk grows: makes its data file as long, and preallocates what is new.
    func makeRoom(from start: Int, to end: Int, _ mode: PreallocMode, exact: Bool) async throws(BlockError) {
        if geometry.hasExternalData {
            let present = dataFile.length
            // What a longer data file has behind the old end was never part of this disk.
            if present > start { try await dataFile.writeZeroes(GuestRange(GuestOffset(start), byteCount: min(present, end) - start)) }
            if present < end || (exact && present != end) { try await dataFile.resize(to: end, preallocation: mode == .metadata ? .off : mode) }
        }
        let mode = mode == .off && isRawData ? .metadata : mode
        if mode == .off { return }
        do throws(BlockError) { try await preallocate(from: start, to: end, mode) } catch {
            await forget(from: start, to: end)
            throw error
        }
    }
}
