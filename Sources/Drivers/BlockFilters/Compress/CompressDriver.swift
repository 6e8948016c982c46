package import BlockGraph
package import IOCore
package import StorageSchema
package import StrataBase

/// Has everything that is written stored compressed (`driver=compress`). The format below compresses whole units, so smaller writes read the
/// rest of theirs first.
package final class CompressDriver: FilterDriver {
    package static let formatName = "compress"

    package let file: BlockChild

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .compress(let own) = options.branch else { throw BlockError(.invalidArgument, "options of another driver were given to 'compress'") }
        let file = try await opener.openChild(own.file, as: "file", role: [.filtered, .primary])
        try check(file)
        return CompressDriver(file)
    }

    private static func check(_ file: BlockChild) throws(BlockError) {
        if file.node.compressionUnit != nil { return }
        throw BlockError(.unsupported, "Compression is not supported for underlying format: \(file.node.formatName)")
    }

    package func stageReopen(_ request: ReopenRequest) throws(BlockError) {
        if let next = request.replaced["file"] { try Self.check(next) }
    }

    private init(_ file: BlockChild) { self.file = file }

    /// The graph pads writes to whole units, and keeps apart those that share one.
    package var limits: BlockLimits { BlockLimits(requestAlignment: file.node.compressionUnit ?? 1) }

    /// A unit that is not read or written whole is no business of the synchronous path.
    package func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool { false }

    package func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        // The last unit may end beyond the end of the disk.
        let inside = min(source.byteCount, length - offset.rawValue)
        if inside <= 0 { return }
        Trace.compressWrite(offset: offset.rawValue, bytes: inside)
        try await file.write(source.slice(at: 0, byteCount: inside), at: offset, flags: flags.union(.compressed).subtracting(.alreadyTried))
    }
}
