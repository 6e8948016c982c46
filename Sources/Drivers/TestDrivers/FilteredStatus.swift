import BlockGraph
import StrataBase

extension BlockChild {
    /// What a filter that shows this child byte for byte says about a range: what the child says, and that the bytes are there at the same place.
    func statusOfSameBytes(_ range: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus {
        // What sticks out behind the child (when a filter rounds its length up) reads as zeroes.
        let inside = min(range.byteCount, length - range.start.rawValue)
        guard inside > 0 else { return BlockStatus(byteCount: range.byteCount, flags: [.zero, .allocated]) }
        let below = try await blockStatus(of: GuestRange(range.start, byteCount: inside), precise: precise)
        return BlockStatus(
            byteCount: below.byteCount, flags: below.flags.union(.offsetValid).subtracting([.endOfFile, .recurse]), offset: range.start.asHost, file: self)
    }
}
