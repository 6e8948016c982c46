package import StrataBase

/// A stretch of work for one worker.
package struct CopyPiece: Sendable, Hashable {
    /// Counts from 0 in the order of handing out, without gaps. A piece that comes back keeps its number.
    package let number: Int
    /// In bytes; not empty.
    package let range: Range<Int>

    package init(number: Int, range: Range<Int>) {
        self.number = number
        self.range = range
    }
}

/// What is to be copied, handed out to workers on any thread.
package protocol CopyWork: Sendable {
    /// The next piece; nil when there is none left at the moment. Whoever gets one returns it by `finish`.
    func next() -> CopyPiece?
    /// It was found that there is nothing to do for this range.
    /// - Returns: how many bytes of work that was.
    func skip(_ range: Range<Int>) -> Int
    /// - Parameter succeeded: if not, the piece will be handed out again.
    func finish(_ piece: CopyPiece, succeeded: Bool)
    /// Nothing is handed out any more, until `restart`.
    func stop()
    func restart()
}

/// What became of one piece.
package struct CopyTally: Sendable, Hashable {
    /// Bytes that need no more work, those found to need none included.
    package var finished = 0
    /// Bytes that were read and written.
    package var moved = 0
    package init() {}
}

/// Why a piece could not be copied.
package struct CopyFailure: Error, Sendable {
    package let error: BlockError
    /// The request that failed, in bytes.
    package let range: Range<Int>
    /// Whether it was the source that failed.
    package let isRead: Bool

    package init(_ error: BlockError, _ range: Range<Int>, isRead: Bool) {
        self.error = error
        self.range = range
        self.isRead = isRead
    }
}

package enum CopyFailureAction: Sendable, Hashable {
    /// The piece is handed out again.
    case retry
    /// The copying ends.
    case stop
}

/// Whoever has a copier at work. Called by workers on any thread, while they hold no piece and are inside no gate: these calls may take their time.
package protocol CopyDelegate: AnyObject, Sendable {
    /// Before each piece: the place to pause.
    /// - Returns: whether to go on; if not, the worker ends.
    func admit() async -> Bool
    /// After each piece: progress, and the place to slow down.
    func copied(_ tally: CopyTally) async
    func failed(_ failure: CopyFailure) async -> CopyFailureAction
}
