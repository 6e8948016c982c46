import BlockGraph
import IOCore
package import StrataBase
import Synchronization

extension QCOW2Driver: Activating {
    package func inactivate() async throws(BlockError) {
        try await settleIfWritten()
        try await settleBitmaps()
        // They are the other's for the moment.
        forgetStoredBitmaps()
    }

    /// Somebody else may have written to the image: everything known of it is read anew. Its clusters must still be of the same size.
    package func activate() async throws(BlockError) {
        try await reread()
        try await loadBitmaps()
        bitmaps.noteSize(length)
    }

    /// The same after a repair. Bitmaps that cannot be loaded are left as they are, and are counted by whoever checks the image.
    func activateRepaired() async throws(BlockError) {
        try await reread()
        do throws(BlockError) { try await loadBitmaps() } catch {
            forgetStoredBitmaps()
            bitmapStore.content.withLock { $0.isLoaded = false }
        }
        bitmaps.noteSize(length)
    }

    private func reread() async throws(BlockError) {
        let header = try await Self.readHeader(of: file)
        guard header.geometry == geometry, header.header.version == opened.header.version else {
            throw BlockError(.corruptImage, "qcow2: the image in node '\(file.node.name)' has become another one while it was inactive")
        }
        try header.refuseUnclearData(isDataFileGiven: externalData != nil || options.namesDataFile)
        let l1 = try await Self.readL1(of: file, header)
        opened = header
        storedBacking.withLock { $0 = (header.backingName, header.extensions.backingFormat) }
        // What the other has added stays when the image is closed.
        initialFileLength = file.length
        setLength(header.virtualSize)
        state.withLock { $0 = Self.initialState(header, options, l1) }
        lastDecompressed.withLock { $0 = nil }
    }
}
