package import BlockGraph
import IOCore
import StorageSchema
package import StrataBase
import Synchronization

/// What an image is going to be used like.
struct ReopenCandidate {
    let options: QCOW2OpenOptions
    /// The file that the edge will lead to, if it is another one.
    let file: BlockChild?
}

extension QCOW2Driver: Reopening {
    package static var changeableOptions: Set<String> {
        [
            "lazy-refcounts", "pass-discard-request", "pass-discard-snapshot", "pass-discard-other", "discard-no-unref", "overlap-check", "cache-size",
            "l2-cache-size", "l2-cache-entry-size", "refcount-cache-size", "cache-clean-interval",
        ]
    }

    package var namesBackingFile: Bool { opened.backingName != nil }

    package func stageReopen(_ request: ReopenRequest) throws(BlockError) {
        guard case .qcow2(let own) = request.options.branch else { throw BlockError(.invalidArgument, "the options are not those of a qcow2 node") }
        if !request.nodeOptions.isReadOnly { try opened.refuseWriting() }
        candidate = ReopenCandidate(
            options: try QCOW2OpenOptions(own, discardsUnmap: request.nodeOptions.discardsUnmap, geometry, version: opened.header.version), file: request.replaced["file"])
    }

    /// Everything goes to the file, which may be about to become read-only; the caches may then be exchanged.
    package func prepareReopen() async throws(BlockError) {
        try await settleIfWritten()
        if let file = candidate?.file { try await refuseOtherImage(in: file) }
    }

    /// Another file below is another way to the same image. All tables in memory belong to this one.
    private func refuseOtherImage(in other: BlockChild) async throws(BlockError) {
        let count = min(file.length, geometry.clusterSize)
        let (ours, theirs) = (IOBuffer(byteCount: count), IOBuffer(byteCount: count))
        if other.length >= count {
            try await file.read(ours.vector, at: GuestOffset(0))
            try await other.read(theirs.vector, at: GuestOffset(0))
            let isSame = ours.withBytes { a in
                theirs.withBytes { b in (0..<count).allSatisfy { a.checkedBigEndian(at: $0, as: UInt8.self) == b.checkedBigEndian(at: $0, as: UInt8.self) } }
            }
            if isSame { return }
        }
        throw BlockError(.invalidArgument, "Node '\(other.node.name)' does not hold the image that is open: its header is another one")
    }

    package func commitReopen() async {
        guard let new = candidate?.options else { return }
        candidate = nil
        let isSized = new.l2SliceBytes != options.l2SliceBytes || new.l2CacheBytes != options.l2CacheBytes || new.refcountCacheBytes != options.refcountCacheBytes
        let wasCleaned = options.cacheCleanInterval > 0
        options = new
        if !wasCleaned { scheduleCacheCleaning() }
        state.withLock { new.apply(to: &$0) }
        guard isSized else { return }
        state.withLock { state in
            // Everything in them is on disk: they fill again as need be.
            state.l2 = new.emptyL2Cache(forVirtualSize: state.virtualSize, geometry)
            state.refcounts.cache = RefcountCache(capacity: new.refcountSlots(geometry))
        }
    }

    package func abortReopen() async { candidate = nil }
}
