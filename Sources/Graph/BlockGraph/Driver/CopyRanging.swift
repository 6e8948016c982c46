package import IOCore
package import StrataBase

/// Can take part in a copy that the kernel makes by itself, sharing the blocks on disk where the file system can.
///
/// A copy begins at the source's edge (`BlockChild.copyRange`). The source's drivers find out where the bytes lie, down to a host file; that one hands
/// itself to the destination, whose drivers find out where the bytes have to go, down to another host file, which has the kernel copy them. All of
/// this happens inside one call, so that what a driver has looked up stays valid.
///
/// `.unsupported` is no error. It may come after a part has been copied, and then the caller writes all of the range in another way.
package protocol CopyRanging: BlockDriver {
    /// As the source: passes on to `destination` what makes up the range. The range lies inside the node.
    func copyRange(_ range: GuestRange, to destination: CopyDestination) async throws(BlockError) -> Support
    /// As the destination: a write. The range has been checked like that of every write, and consists of whole units of the node.
    func copyRange(from source: HostFileSpan, to offset: GuestOffset, flags: RequestFlags) async throws(BlockError) -> Support
}

/// A run of bytes of an open host file.
package struct HostFileSpan: Sendable {
    package let file: HostFile
    package let offset: HostOffset
    package let byteCount: Int

    package init(_ file: HostFile, at offset: HostOffset, byteCount: Int) {
        self.file = file
        self.offset = offset
        self.byteCount = byteCount
    }

    package func slice(at start: Int, byteCount: Int) -> HostFileSpan { HostFileSpan(file, at: offset + start, byteCount: byteCount) }
}

/// Where a copy goes: an edge, and the place that the next byte belongs at.
package struct CopyDestination: Sendable {
    private let target: BlockChild
    private let offset: GuestOffset
    private let flags: RequestFlags

    init(_ target: BlockChild, at offset: GuestOffset, flags: RequestFlags) {
        self.target = target
        self.offset = offset
        self.flags = flags
    }

    package func advanced(by byteCount: Int) -> CopyDestination { CopyDestination(target, at: offset + byteCount, flags: flags) }

    /// What the source has here reads as zeroes.
    package func writeZeroes(byteCount: Int) async throws(BlockError) {
        try await target.writeZeroes(GuestRange(offset, byteCount: byteCount), flags: flags)
    }

    /// What the source has here lies in a host file.
    package func write(_ source: HostFileSpan) async throws(BlockError) -> Support {
        try await target.copyRange(from: source, at: offset, flags: flags)
    }
}
