import Synchronization

/// What compresses and expands; holds tables that are costly to make, and is used by one thread at a time.
protocol StreamCoder: AnyObject, Sendable {
    static var pool: CoderPool<Self> { get }
    init()
    /// Compresses all of `source`.
    /// - Returns: the length of the stream, nil when it does not fit in `target`.
    @unsafe func compress(_ source: UnsafeRawBufferPointer, _ target: UnsafeMutableRawBufferPointer) -> Int?
    /// Expands the stream at the start of `source`; what follows it is ignored.
    /// - Returns: the number of bytes produced, negative for a stream that cannot be read.
    @unsafe func expand(_ source: UnsafeRawBufferPointer, _ target: UnsafeMutableRawBufferPointer) -> Int
}

/// Coders that nobody uses at the moment: as many as were ever in use at once.
final class CoderPool<Coder: StreamCoder>: Sendable {
    private let idle = Mutex<[Coder]>([])

    init() {}

    /// Lends a coder for one call.
    func withCoder<Result>(_ body: (Coder) -> Result) -> Result {
        let coder = idle.withLock { $0.popLast() } ?? Coder()
        defer { idle.withLock { $0.append(coder) } }
        return body(coder)
    }
}
