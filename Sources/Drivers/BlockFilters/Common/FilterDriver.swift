package import BlockGraph
package import IOCore
package import StorageSchema
package import StrataBase

/// A driver that shows the data of its one child unchanged. What it does not write down itself goes to the child as it came.
///
/// A filter declares no alignment and no limits of its own: the edge to the child pads and splits.
package protocol FilterDriver: Flushing, ZeroWriting, Discarding, Resizing, StatusReporting, CompressedWriting, Reopening {
    var file: BlockChild { get }
}

extension FilterDriver {
    package static var kind: DriverKind { .filter }

    package var length: Int { file.length }
    package var children: [BlockChild] { [file] }
    package var supportedWriteFlags: RequestFlags { file.node.driver.supportedWriteFlags }
    package var compressionUnit: Int? { file.node.compressionUnit }

    package func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool { file.tryRead(target, at: offset) }

    package func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        try await file.read(target, at: offset, flags: flags)
    }

    package func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool { file.tryWrite(source, at: offset, flags: flags) }

    package func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        try await file.write(source, at: offset, flags: flags)
    }

    package func flush() async throws(BlockError) { try await file.flush() }
    package func startWriteback() { file.startWriteback() }

    package func writeZeroes(_ range: GuestRange, flags: RequestFlags) async throws(BlockError) -> Support {
        try await file.writeZeroes(range, flags: flags)
        return .done
    }

    package func discard(_ range: GuestRange) async throws(BlockError) -> Support {
        try await file.discard(range)
        return .done
    }

    package func resize(to byteCount: Int, exact: Bool, preallocation: PreallocMode) async throws(BlockError) {
        try await file.resize(to: byteCount, exact: exact, preallocation: preallocation)
    }

    /// The child's own answer: what it has not allocated is looked for below it, not here.
    package func tryBlockStatus(of range: GuestRange, precise: Bool) -> BlockStatus? { file.tryBlockStatus(of: range, precise: precise).map(passedOn) }

    package func blockStatus(of range: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus {
        passedOn(try await file.blockStatus(of: range, precise: precise))
    }

    private func passedOn(_ status: BlockStatus) -> BlockStatus {
        var status = status
        status.flags.remove(.endOfFile)
        return status
    }
}
