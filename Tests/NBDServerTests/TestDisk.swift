import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization

/// A disk in memory whose behaviour depends on the name of its node. Takes the place of `null-co` in a test's list of drivers.
///
/// - `quick...`: answers at once.
/// - `slow...`: never answers at once, and after a delay that differs from request to request, so that answers overtake each other.
/// - `moody...`: at once in the first half of each MiB, as slow in the second.
/// - `failing...`: as slow, and reads of the second MiB and writes of the third fail.
/// - `stuck...`: each request takes a quarter of a second.
final class TestDisk: BlockDriver, Flushing, StatusReporting {
    static let formatName = "null-co"
    static let kind = DriverKind.protocol

    private enum Behaviour { case quick, slow, moody, failing, stuck }

    let length: Int
    private let memory: IOBuffer
    private let behaviour: Behaviour
    private let requestCount = Atomic<Int>(0)

    static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .nullCo(let own) = options.branch else { throw BlockError(.invalidArgument, "not a test disk") }
        return TestDisk(options.nodeName ?? "", byteCount: own.size ?? 1 << 20)
    }

    private init(_ name: String, byteCount: Int) {
        length = byteCount
        memory = IOBuffer(zeroed: byteCount)
        behaviour = name.hasPrefix("slow") ? .slow : name.hasPrefix("moody") ? .moody : name.hasPrefix("failing") ? .failing : name.hasPrefix("stuck") ? .stuck : .quick
    }

    static func node(_ name: String, byteCount: Int) -> BlockdevOptions {
        BlockdevOptions(.nullCo(BlockdevOptionsNull(size: byteCount)), nodeName: name)
    }

    private func delay() async {
        guard behaviour != .quick, let context = IOContext.current else { return }
        let number = requestCount.add(1, ordering: .relaxed).oldValue
        await context.sleep(for: behaviour == .stuck ? .milliseconds(250) : .microseconds((number &* 7919) % 1500))
    }

    private func answersAtOnce(_ offset: GuestOffset, _ byteCount: Int) -> Bool {
        behaviour == .quick || (behaviour == .moody && (offset.rawValue + byteCount - 1) & (1 << 20 - 1) < 1 << 19)
    }

    func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool {
        if !answersAtOnce(offset, target.byteCount) { return false }
        target.copy(from: memory.vector(at: offset.rawValue, byteCount: target.byteCount))
        return true
    }

    func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        await delay()
        if behaviour == .failing, offset.rawValue >> 20 == 1 { throw BlockError(.io, "the test disk cannot read its second MiB") }
        target.copy(from: memory.vector(at: offset.rawValue, byteCount: target.byteCount))
    }

    func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool {
        if !answersAtOnce(offset, source.byteCount) { return false }
        memory.vector(at: offset.rawValue, byteCount: source.byteCount).copy(from: source)
        return true
    }

    func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        await delay()
        if behaviour == .failing, offset.rawValue >> 20 == 2 { throw BlockError(.noSpace, "the test disk is full in its third MiB") }
        memory.vector(at: offset.rawValue, byteCount: source.byteCount).copy(from: source)
    }

    func flush() async throws(BlockError) { await delay() }

    /// Every other 64 KiB is a hole as long as nobody has written to it.
    func blockStatus(of range: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus {
        await delay()
        return status(range)
    }

    func tryBlockStatus(of range: GuestRange, precise: Bool) -> BlockStatus? { behaviour == .quick ? status(range) : nil }

    private func status(_ range: GuestRange) -> BlockStatus {
        let piece = range.start.rawValue >> 16
        let byteCount = min(range.byteCount, (piece + 1) << 16 - range.start.rawValue)
        let isHole = piece % 2 == 1 && memory.vector(at: piece << 16, byteCount: min(1 << 16, length - piece << 16)).isZero
        return BlockStatus(byteCount: byteCount, flags: isHole ? [.zero, .allocated] : [.data, .allocated])
    }
}

extension TestServer {
    /// A server with one writable export of a test disk.
    static func withTestDisk(_ name: String, byteCount: Int, threads: Int = 0) async throws -> TestServer {
        try await TestServer(
            threads: threads, drivers: [TestDisk.self], nodes: { _ in [TestDisk.node(name, byteCount: byteCount)] }, exports: [export(name)])
    }
}

extension SeededGenerator {
    init(seed: Int) { self.init(seed: UInt64(truncatingIfNeeded: seed)) }
    mutating func bytes(_ count: Int) -> [UInt8] { randomBytes(count, using: &self) }
}
