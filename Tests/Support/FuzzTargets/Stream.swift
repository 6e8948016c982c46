import StrataBase

/// Bytes that arrive in pieces.
struct Stream {
    private let bytes: [UInt8]
    private var start = 0
    private var end = 0
    private let piece: Int

    /// - Parameter piece: how many bytes arrive at a time; 0 for all at once.
    init(_ bytes: ArraySlice<UInt8>, piece: UInt8) {
        self.bytes = Array(bytes)
        self.piece = piece == 0 ? .max : Int(piece)
    }

    /// What has arrived and was not dropped.
    var arrived: RawSpan {
        @_lifetime(borrow self) get { bytes.span.bytes.extracting(start..<end) }
    }
    var count: Int { end - start }

    /// False at the end.
    mutating func receive() -> Bool {
        if end == bytes.count { return false }
        end += min(piece, bytes.count - end)
        return true
    }

    mutating func drop(_ count: Int) { start += count }
    mutating func forgetArrived() { start = end }
}
