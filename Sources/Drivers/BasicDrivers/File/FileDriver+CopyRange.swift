package import BlockGraph
import IOCore
package import StrataBase

extension FileDriver: CopyRanging {
    package func copyRange(_ range: GuestRange, to destination: CopyDestination) async throws(BlockError) -> Support {
        try await destination.write(HostFileSpan(file, at: range.start.asHost, byteCount: range.byteCount))
    }

    package func copyRange(from source: HostFileSpan, to offset: GuestOffset, flags: RequestFlags) async throws(BlockError) -> Support {
        Trace.fileCopyRangeBegin(path: path, offset: offset.rawValue, bytes: source.byteCount, source: source.file.path, sourceOffset: source.offset.rawValue)
        defer { Trace.fileCopyRangeEnd(path: path, offset: offset.rawValue, bytes: source.byteCount) }
        // Shared blocks may bring holes of the source with them.
        defer { forgetKnownData() }
        var done = 0
        while done < source.byteCount {
            let rest = source.slice(at: done, byteCount: source.byteCount - done)
            let count = try await file.copyRange(from: rest.file, at: rest.offset, to: (offset + done).asHost, byteCount: rest.byteCount,
                sharedOnly: flags.contains(.sharedOnly))
            // No progress: the source's file ends inside the last unit of its node.
            guard let count, count > 0 else { return .unsupported }
            done += count
        }
        grow(to: offset + source.byteCount)
        if flags.contains(.forceUnitAccess) { try await flush() }
        return .done
    }
}
