package import BlockGraph

/// How a copier works.
package struct CopySettings: Sendable {
    /// Pieces under way at once, over all contexts.
    package var workers = 8
    /// Bytes that one request moves at most, and each worker's buffer: what two workers read and write again stays in the processor's cache.
    package var pieceSize = 512 << 10
    /// Bytes of zeroes in a row that are worth leaving out; 0 writes everything, and what reads as zero as data.
    package var sparseUnit = 4096
    /// Whether everything at the target reads as zero before the first write.
    package var targetIsZero = false
    /// Whether to look, before zeroes are written, where the target has them already.
    package var asksTarget = false
    /// Whether the target is going to stand on something else: where it has nothing of its own it need not go on reading as zero.
    package var targetGetsBacking = false
    /// Whether pieces are written in their order. Only for work that never comes back, because nobody waits longer than that.
    package var isOrdered = false
    /// Whether what is still to be copied stays as it is, so that what was found about one piece holds for the next.
    package var sourceIsStable = false
    /// What the target compresses together, in bytes: whole units are written compressed. Nil writes plainly.
    package var compressionUnit: Int?
    /// Bytes that are written together, also where a part of them would not have to be: a power of two.
    package var wholeUnit = 1
    /// Whether to let the kernel copy where source and target lie in host files. Given up after the first refusal.
    package var usesCopyRange = false
    /// Whether the kernel may do no more than have the target share the source's blocks: then zeroes in the data are still found where it cannot.
    package var sharesOnly = false
    /// Whether workers discard at the source what they have copied.
    package var discardsSource = false
    /// Whether a flush follows when all is copied: then the disk begins to write while there is more to copy, and the flush has less to wait for.
    package var startsWriteback = false
    /// What writes carry.
    package var writeFlags: RequestFlags = []
    /// What writes of zeroes carry.
    package var zeroFlags: RequestFlags = .mayUnmap

    package init() {}
}
