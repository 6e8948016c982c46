import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import Synchronization

/// A file in memory for a graph, which opens it by the options of `null-co`; the size there is the file's number.
final class MemoryFile: BlockDriver, Flushing, Resizing, Discarding {
    static let formatName = "null-co"
    static let kind = DriverKind.protocol
    /// Bytes; what would make a file longer fails as on a full disk.
    static let longest = 4 << 20

    /// The contents, shared by all nodes on the file. What the file is longer than its bytes are zeroes that take no memory: images grow ahead of need.
    final class Contents: Sendable {
        struct State {
            var bytes: [UInt8]
            var length: Int
        }
        let state: Mutex<State>
        init(_ bytes: [UInt8]) { state = Mutex(State(bytes: bytes, length: bytes.count)) }

        /// All of it, without the zeroes at the end that nobody has written.
        var bytes: [UInt8] { state.withLock { $0.bytes } }
    }

    private static let files = Mutex<[Int: Contents]>([:])

    /// Makes files openable under their numbers, from 1 on, as long as `body` runs.
    static func with<Result>(_ contents: [Contents], _ body: () throws -> Result) rethrows -> Result {
        files.withLock { files in for (index, content) in contents.enumerated() { files[index + 1] = content } }
        defer { files.withLock { $0 = [:] } }
        return try body()
    }

    static func options(_ number: Int) -> BlockdevOptions { BlockdevOptions(.nullCo(BlockdevOptionsNull(size: number)), discard: .unmap) }

    private let contents: Contents
    private init(_ contents: Contents) { self.contents = contents }

    static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .nullCo(let own) = options.branch, let contents = files.withLock({ $0[own.size ?? 0] }) else {
            throw BlockError(.notFound, "no file in memory has that number")
        }
        return MemoryFile(contents)
    }

    var length: Int { contents.state.withLock { $0.length } }

    func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool {
        contents.state.withLock { state in
            let inside = max(0, min(target.byteCount, state.bytes.count - offset.rawValue))
            if inside > 0 { target.slice(at: 0, byteCount: inside).copyIn(state.bytes.span.bytes.extracting(offset.rawValue..<offset.rawValue + inside), at: 0) }
            if inside < target.byteCount { target.slice(at: inside, byteCount: target.byteCount - inside).zero() }
        }
        return true
    }

    func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) { _ = tryRead(target, at: offset) }

    func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool {
        guard offset.rawValue <= Self.longest - source.byteCount else { return false }
        contents.state.withLock { state in
            let end = offset.rawValue + source.byteCount
            if end > state.bytes.count { state.bytes += repeatElement(0, count: end - state.bytes.count) }
            state.length = max(state.length, end)
            var span = state.bytes.mutableSpan
            var raw = span.mutableBytes
            var part = raw._mutatingExtracting(offset.rawValue..<end)
            source.copyOut(at: 0, into: &part)
        }
        return true
    }

    func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        guard tryWrite(source, at: offset, flags: flags) else { throw BlockError(.noSpace, "the file in memory is full") }
    }

    func flush() async throws(BlockError) {}

    /// What is punched out reads as zeroes.
    func discard(_ range: GuestRange) async throws(BlockError) -> Support {
        contents.state.withLock { state in
            for position in range.start.rawValue..<max(range.start.rawValue, min(range.end.rawValue, state.bytes.count)) { state.bytes[position] = 0 }
        }
        return .done
    }

    func resize(to byteCount: Int, exact: Bool, preallocation: PreallocMode) async throws(BlockError) {
        guard byteCount <= Self.longest else { throw BlockError(.noSpace, "the file in memory is full") }
        contents.state.withLock { state in
            if byteCount < state.bytes.count { state.bytes.removeLast(state.bytes.count - byteCount) }
            state.length = byteCount
        }
    }
}
