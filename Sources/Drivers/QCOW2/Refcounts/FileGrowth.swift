import BlockGraph
import IOCore
import StrataBase
import Synchronization

extension QCOW2Driver {
    /// Makes the file below at least `needed` bytes long. It grows ahead of need, so that allocating a cluster rarely comes here; `close` cuts
    /// off what was not used. Grown bytes read as zeroes, which saves writing the untouched part of new clusters.
    func growFile(to needed: Int) async throws(BlockError) {
        await fileGrowth.lock()
        defer { fileGrowth.unlock() }
        if state.withLock({ $0.refcounts.fileLength >= needed }) { return }
        // Writers of new clusters wait meanwhile, so a new image doubles.
        let ahead = min(max(needed, 1 << 20), 64 << 20).roundedUp(to: geometry.clusterSize)
        var failure: BlockError?
        do { try await file.resize(to: needed + ahead, exact: false) } catch { failure = error }
        if failure != nil {
            failure = nil
            do { try await file.resize(to: needed, exact: false) } catch { failure = error }
        }
        let length = file.length
        state.withLock { $0.refcounts.fileLength = max($0.refcounts.fileLength, length.roundedDown(to: geometry.clusterSize)) }
        if length >= needed { return }
        guard let failure else { throw BlockError(.noSpace, "the image file cannot grow to \(needed) bytes: No space left on device") }
        if failure.code == .unsupported { throw BlockError(.noSpace, "the image file is full at \(length) bytes and cannot grow: No space left on device") }
        throw failure.during("growing the image file to \(needed) bytes")
    }
}
