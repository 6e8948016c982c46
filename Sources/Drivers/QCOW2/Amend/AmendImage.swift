package import BlockGraph
import IOCore
import StorageSchema
package import StrataBase
import Synchronization

extension QCOW2Driver: Amending {
    package func amend(_ amendment: ImageAmendment, progress: @Sendable (_ done: Int, _ total: Int) -> Void) async throws(BlockError) {
        try opened.refuseWriting()
        let wish = try await checked(amendment)
        try await prepareForWriting()
        // The image is read anew after each step: caches must hold nothing of their own.
        try await settleIfWritten()
        if wish.version == 3, opened.header.version < 3 { try await rewriteHeader { $0.upgrade() } }
        if wish.refcountBits != geometry.refcountBits {
            try await changeRefcountWidth(toOrder: wish.refcountBits.trailingZeroBitCount, progress: progress)
        }
        if opened.header.version >= 3 { try await changeFlags(wish) }
        if let name = amendment.dataFile { try await rewriteHeader { $0.setDataFile(name) } }
        if let size = wish.size, size != length {
            // Nobody above sees this resize, who would tell the bitmaps.
            defer { bitmaps.noteSize(length) }
            try await resize(to: size, exact: false, preallocation: .off)
        }
        if wish.version == 2, opened.header.version >= 3 { try await downgrade(progress) }
        try await flush()
        progress(1, 1)
    }

    /// An amendment that this image can take, with what stays filled in.
    private struct Wish {
        var version: UInt32
        var refcountBits: Int
        var isLazy: Bool
        var isRaw: Bool
        /// Bytes.
        var size: Int?
    }

    private func checked(_ amendment: ImageAmendment) async throws(BlockError) -> Wish {
        let header = opened.header
        let stored = storedBacking.withLock { $0 }
        // Who names one of the two means the other to be as said, too: nothing.
        let namesBacking = amendment.backingFile != nil || amendment.backingFormat != nil
        if namesBacking, (amendment.backingFile, amendment.backingFormat) != stored {
            throw BlockError(.invalidArgument, "Cannot amend the backing file", hint: "You can use 'qemu-img rebase' instead.")
        }
        let version: UInt32 = amendment.version.map { $0 == .v2 ? 2 : 3 } ?? header.version
        let bits = amendment.refcountBits ?? geometry.refcountBits
        guard bits.isPowerOfTwo, bits <= 64 else {
            throw BlockError(.invalidArgument, "Refcount width must be a power of two and may not exceed 64 bits")
        }
        if version < 3, bits != 16 {
            throw BlockError(
                .invalidArgument,
                header.version < 3
                    ? "Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)"
                    : "compat=0.10 requires refcount_bits=16")
        }
        if version < 3, amendment.lazyRefcounts == true {
            throw BlockError(.invalidArgument, "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)")
        }
        let wasRaw = header.autoclear.contains(.rawExternalData) && geometry.hasExternalData
        if amendment.dataFileRaw == true, !wasRaw { throw BlockError(.invalidArgument, "data-file-raw cannot be set on existing images") }
        if amendment.dataFile != nil, !geometry.hasExternalData {
            throw BlockError(.invalidArgument, "data-file can only be set for images that use an external data file")
        }
        // A size of 0 asks for nothing, as in QEMU's tools: nobody loses a disk to an empty variable of a script.
        let size = amendment.size.flatMap { $0 == 0 ? nil : $0.roundedUp(to: 512) }
        if let size, size > geometry.maximumVirtualSize { throw BlockError(.tooLarge, "The new size is too large for the image's cluster size") }
        if version < 3, header.version >= 3 { try await checkDowngrade(size: size ?? length) }
        return Wish(
            version: version, refcountBits: bits, isLazy: amendment.lazyRefcounts ?? header.compatible.contains(.lazyRefcounts),
            isRaw: wasRaw && amendment.dataFileRaw != false, size: size)
    }

    /// Lazy refcounts and the promise that a data file is raw: one bit each.
    private func changeFlags(_ wish: Wish) async throws(BlockError) {
        var compatible = opened.header.compatible
        if wish.isLazy { compatible.insert(.lazyRefcounts) } else { compatible.remove(.lazyRefcounts) }
        var isChanged = false
        if compatible != opened.header.compatible {
            try await writeHeaderBytes(at: QCOW2Header.Field.compatible, compatible.rawValue)
            isChanged = true
        }
        if !wish.isRaw, isRawData {
            try await writeHeaderBytes(at: QCOW2Header.Field.autoclear, opened.header.autoclear.subtracting(.rawExternalData).rawValue)
            isChanged = true
        }
        guard isChanged else { return }
        try await file.flush()
        try await reload()
    }

    /// Reads everything that is known of the image anew, after its header was changed. Nothing in the caches differs from the file.
    func reload() async throws(BlockError) {
        let header: ValidatedHeader
        let l1: [UInt64]
        do throws(BlockError) {
            header = try await Self.readHeader(of: file)
            l1 = try await Self.readL1(of: file, header)
        } catch {
            // What is in memory is not what the header says now: nothing more is written.
            state.withLock { $0.isCorrupt = true }
            throw error.during("reading the amended image")
        }
        // Whatever was in use before stays when the image is closed.
        initialFileLength = state.withLock { max(initialFileLength, $0.refcounts.highestEnd) }
        geometry = header.geometry
        opened = header
        setLength(header.virtualSize)
        storedBacking.withLock { $0 = (header.backingName, header.extensions.backingFormat) }
        state.withLock { $0 = Self.initialState(header, options, l1) }
        lastDecompressed.withLock { $0 = nil }
        try await prepareForWriting()
    }
}
