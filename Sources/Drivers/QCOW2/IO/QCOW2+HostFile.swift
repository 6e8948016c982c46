package import BlockGraph
import IOCore
package import StrataBase
import Synchronization

extension QCOW2Driver: HostFileBacked {
    /// Where a range of plain clusters lies in the host file, so that the kernel can send it.
    ///
    /// The place must stay valid for the rest of the turn, so the range keeps its ticket (`InFlightIO`) until the turn is over. The kernel may hold
    /// on to the file's pages for longer, until the peer has read them. A cluster that is reused meanwhile would show another block's data;
    /// therefore no places are given any more once a cluster has been freed, and such images are read by copying.
    package func hostFileRange(of range: GuestRange) -> HostFileRange? {
        guard let context = IOContext.current, !file.observesFaultPoints, opened.header.encryptionMethod == 0 else { return nil }
        guard let place = place(of: range) else { return nil }
        context.post { [self] in inFlight.leave(place.ticket) }
        return dataFile.hostFileRange(of: GuestRange(place.host.asGuest, byteCount: range.byteCount))
    }

    private func place(of range: GuestRange) -> (host: HostOffset, ticket: InFlightIO.Ticket)? {
        while true {
            let missing: Int
            do {
                return try state.withLock { state throws(Obstacle) in
                    if state.frees.hasEverFreed { return nil }
                    let extent = try state.extent(at: range.start, limit: range.byteCount)
                    guard extent.kind == .normal, extent.byteCount == range.byteCount else { return nil }
                    return (extent.host, inFlight.enter(epoch: state.epoch))
                }
            } catch {
                guard case .l2Slice(let slice) = error else { return nil }
                missing = slice
            }
            if !tryLoadSlice(missing) { return nil }
        }
    }
}
