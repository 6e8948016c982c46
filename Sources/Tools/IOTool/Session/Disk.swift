import BlockGraph
import IOCore
import StrataBase
import ToolSupport

/// The image that commands work on.
///
/// Its size is counted in whole sectors, as the tool always has: what lies between the end of the image and the end of its last sector reads as zeroes.
final class Disk: Sendable {
    static let sectorSize = 512

    let image: OpenImage
    private let writeFlags: RequestFlags

    /// - Parameter isWriteThrough: every write is durable when it is over.
    init(_ image: OpenImage, isWriteThrough: Bool) {
        self.image = image
        writeFlags = isWriteThrough ? .forceUnitAccess : []
    }

    private var backend: BlockBackend { image.backend }
    var isWritable: Bool { backend.isWritable }
    /// In bytes, rounded up to sectors.
    var length: Int { backend.length.roundedUp(to: Self.sectorSize) }

    /// - Throws: `.io` for a range that is not inside, as the kernel would fail it on a device.
    func check(_ offset: Int, _ byteCount: Int) throws(BlockError) {
        let (end, overflow) = offset.addingReportingOverflow(byteCount)
        guard !overflow, end <= length else {
            throw BlockError(.io, "A request for \(byteCount) bytes at offset \(offset) is outside the \(length) bytes of the image")
        }
    }

    func read(_ target: IOVector, at offset: Int) async throws(BlockError) {
        try check(offset, target.byteCount)
        let inside = max(0, min(target.byteCount, backend.length - offset))
        if inside < target.byteCount { target.slice(at: inside, byteCount: target.byteCount - inside).zero() }
        try await backend.read(target.slice(at: 0, byteCount: inside), at: GuestOffset(min(offset, backend.length)))
    }

    func write(_ source: IOVector, at offset: Int, flags: RequestFlags) async throws(BlockError) {
        try check(offset, source.byteCount)
        try await backend.write(source, at: GuestOffset(offset), flags: flags.union(writeFlags))
    }

    func writeZeroes(at offset: Int, byteCount: Int, flags: RequestFlags) async throws(BlockError) {
        try check(offset, byteCount)
        try await backend.writeZeroes(GuestRange(GuestOffset(offset), byteCount: byteCount), flags: flags.union(writeFlags))
    }

    func discard(at offset: Int, byteCount: Int) async throws(BlockError) {
        try check(offset, byteCount)
        let inside = max(0, min(byteCount, backend.length - offset))
        try await backend.discard(GuestRange(GuestOffset(min(offset, backend.length)), byteCount: inside))
    }

    /// Who keeps machine state for this image: its driver, or the one whose data that passes on.
    private func vmStateStore() throws(BlockError) -> any VMStateStoring {
        var node: BlockNode? = image.node
        while let current = node {
            if let driver = current.driver as? any VMStateStoring { return driver }
            node = current.primaryChild?.node
        }
        throw BlockError(.unsupported, "'\(image.node.name)' keeps no VM state")
    }

    func readVMState(_ target: IOVector, at position: Int) async throws(BlockError) { try await vmStateStore().readVMState(target, at: position) }
    func writeVMState(_ source: IOVector, at position: Int) async throws(BlockError) { try await vmStateStore().writeVMState(source, at: position) }

    func flush() async throws(BlockError) { try await backend.flush() }

    /// Whether the image itself, not a backing file, holds the bytes at `offset`, and for how many bytes from there on that holds.
    func isAllocated(at offset: Int, byteCount: Int) async throws(BlockError) -> (isAllocated: Bool, byteCount: Int) {
        let end = min(offset + byteCount, backend.length)
        // The rest of the last sector is like the byte before it.
        if offset >= end { return (false, byteCount) }
        var position = offset
        var answer: Bool?
        while position < end {
            let range = GuestRange(GuestOffset(position), byteCount: end - position)
            let (status, depth, _) = try await backend.blockStatus(of: range, precise: false)
            let isAllocated = depth == 0 && status.flags.contains(.allocated)
            if answer == nil { answer = isAllocated }
            if isAllocated != answer { return (!isAllocated, position - offset) }
            position += status.byteCount
        }
        return (answer ?? false, byteCount)
    }
}
