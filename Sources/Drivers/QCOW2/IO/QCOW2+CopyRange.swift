package import BlockGraph
import IOCore
package import StrataBase
import Synchronization

// Copies that the kernel makes between host files. The mapping says where the bytes lie, or where they have to go; nothing is looked at.

extension QCOW2Driver: CopyRanging {
    package func copyRange(_ range: GuestRange, to destination: CopyDestination) async throws(BlockError) -> Support {
        if opened.header.encryptionMethod != 0 { return .unsupported }
        var done = 0
        while done < range.byteCount {
            let position = range.start + done
            let limit = range.byteCount - done
            let (extent, ticket) = try await step { state throws(Obstacle) in
                let extent = try state.extent(at: position, limit: limit)
                return (extent, extent.kind == .normal ? inFlight.enter(epoch: state.epoch) : -1)
            }
            defer { if ticket >= 0 { inFlight.leave(ticket) } }
            let rest = destination.advanced(by: done)
            switch extent.kind {
            case .normal:
                if try await dataFile.copyRange(GuestRange(extent.host.asGuest, byteCount: extent.byteCount), to: rest) == .unsupported { return .unsupported }
            case .zero, .zeroAllocated: try await rest.writeZeroes(byteCount: extent.byteCount)
            case .unallocated, .reserved:
                let inside = bytesInBacking(at: position, extent.byteCount)
                if inside > 0, let backing, try await backing.copyRange(GuestRange(position, byteCount: inside), to: rest) == .unsupported { return .unsupported }
                if inside < extent.byteCount { try await rest.advanced(by: inside).writeZeroes(byteCount: extent.byteCount - inside) }
            case .compressed: return .unsupported
            }
            done += extent.byteCount
        }
        return .done
    }

    /// New clusters are filled wholly or not at all: what would surround the copied bytes has to be read and written anyway, and is better written with them.
    package func copyRange(from source: HostFileSpan, to offset: GuestOffset, flags: RequestFlags) async throws(BlockError) -> Support {
        if opened.header.encryptionMethod != 0 { return .unsupported }
        try await prepareForWriting()
        var done = 0
        while done < source.byteCount {
            let position = offset + done
            let left = source.byteCount - done
            let plan = try await step { state throws(Obstacle) in try state.planWrite(at: position, byteCount: left, inFlight) }
            switch plan {
            case .inPlace(let host, let byteCount, let ticket):
                defer { inFlight.leave(ticket) }
                if try await dataFile.copyRange(from: source.slice(at: done, byteCount: byteCount), at: host.asGuest, flags: []) == .unsupported { return .unsupported }
                done += byteCount
            case .reserved(let reservation):
                let shape = WriteShape(reservation, position, left, geometry)
                Trace.qcow2Allocate(file: file.node.name, guest: reservation.guest.rawValue, host: reservation.host.rawValue, clusters: reservation.clusterCount)
                do {
                    let data = source.slice(at: done, byteCount: shape.byteCount)
                    let isCopied =
                        if needsSurroundings(reservation, shape) { false } else {
                            try await dataFile.copyRange(from: data, at: shape.host(of: reservation).asGuest, flags: []) == .done
                        }
                    if !isCopied {
                        cancel(reservation)
                        return .unsupported
                    }
                    let waiters = try await step { state throws(Obstacle) in try state.publish(reservation, written: shape.written) }
                    finish(reservation, waiters)
                    Trace.qcow2Publish(file: file.node.name, guest: reservation.guest.rawValue, host: reservation.host.rawValue, clusters: reservation.clusterCount)
                } catch {
                    cancel(reservation)
                    throw error
                }
                done += shape.byteCount
            }
        }
        try await limitUnmapped()
        return .done
    }

    private func cancel(_ reservation: Reservation) {
        Trace.qcow2Cancel(file: file.node.name, guest: reservation.guest.rawValue, host: reservation.host.rawValue, clusters: reservation.clusterCount)
        finish(reservation, state.withLock { $0.cancel(reservation) })
    }
}
