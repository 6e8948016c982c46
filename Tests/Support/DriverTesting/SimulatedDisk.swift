package import BlockGraph
import IOCore
package import StorageSchema
package import StrataBase
import StrataTesting
import Synchronization

/// A disk in memory that tests put below the driver under test: it keeps what is written, notes every request, fails or holds those it is told
/// to, and complains about requests that break the promises of the graph (alignment, range).
///
/// The graph opens it by the options of `null-co`, for which `SimulatedDiskDriver` stands in: the size there is the disk's number.
package final class SimulatedDisk: Sendable {
    package enum Operation: String, CaseIterable, Sendable { case read, write, writeZeroes, discard, flush, resize, blockStatus }

    /// What the disk can do. Made up once; the same for every node that opens the disk.
    package struct Properties: Sendable {
        /// Requests start at and are multiples of this many bytes.
        package var alignment = 1
        /// Takes FUA itself; otherwise the graph has to flush.
        package var honoursForceUnitAccess = false
        /// Writes zeroes itself; otherwise the graph has to write them as data.
        package var writesZeroes = true
        package var longestTransfer = Int.max
        /// Takes compressed writes of whole units of so many bytes; they are noted with their flag, and stored as they are.
        package var compressionUnit: Int?
        /// Every request suspends a random number of times, so that requests overtake each other.
        package var suspends = false
        /// For the suspensions.
        package var seed: UInt64 = 1

        package init(alignment: Int = 1) { self.alignment = alignment }
    }

    package struct Request: Sendable, Equatable {
        package var operation: Operation
        package var range: GuestRange
        package var flags: RequestFlags
    }

    /// Requests that are to fail.
    package struct Fault: Sendable {
        package var operations: Set<Operation>
        package var code: BlockError.Code
        /// How many matching requests still succeed.
        package var skipped: Int
        /// How many fail afterwards.
        package var count: Int

        package init(_ operations: Set<Operation>, _ code: BlockError.Code = .io, skipped: Int = 0, count: Int = .max) {
            self.operations = operations
            self.code = code
            self.skipped = skipped
            self.count = count
        }
    }

    struct State: Sendable {
        var bytes: [UInt8]
        /// One for each unit of 512 bytes: whether it was written since it was last discarded or unmapped.
        var isData: [Bool]
        var requests: [Request] = []
        var violations: [String] = []
        var faults: [Fault] = []
        var hasUnflushedData = false
        var random: SeededGenerator
    }

    /// Allocation is told in units of this many bytes.
    package static let unit = 512

    package let properties: Properties
    let state: Mutex<State>
    /// Operations that wait until they are let go, and the number of requests that have come so far.
    private let held = AsyncCondition(Set<Operation>())
    private let arrivals = AsyncCondition(0)
    private let inFlight = InFlightCounter()
    let number: Int

    private struct Shelf: Sendable {
        var last = 0
        var disks: [Int: SimulatedDisk] = [:]
    }

    private static let shelf = Mutex(Shelf())

    /// - Parameter byteCount: a multiple of the alignment.
    package init(byteCount: Int, _ properties: Properties = Properties()) {
        precondition(byteCount % properties.alignment == 0, "a disk consists of whole units")
        self.properties = properties
        state = Mutex(
            State(
                bytes: [UInt8](repeating: 0, count: byteCount), isData: [Bool](repeating: false, count: byteCount.dividedRoundingUp(by: Self.unit)),
                random: SeededGenerator(seed: properties.seed)))
        number = Self.shelf.withLock { shelf in
            shelf.last += 1
            return shelf.last
        }
        Self.shelf.withLock { [number] shelf in shelf.disks[number] = self }
    }

    static func find(_ number: Int) -> SimulatedDisk? { shelf.withLock { $0.disks[number] } }

    /// Lets nobody open the disk any more, so that its memory can go.
    package func retire() { Self.shelf.withLock { [number] shelf in shelf.disks[number] = nil } }

    /// The options with which a graph opens the disk.
    package func options(named name: String? = nil) -> BlockdevOptions {
        BlockdevOptions(.nullCo(BlockdevOptionsNull(size: number)), nodeName: name, discard: .unmap)
    }

    // MARK: What tests ask and tell

    package var contents: [UInt8] { state.withLock { $0.bytes } }
    /// - Parameter isData: whether a unit of so many bytes is allocated.
    package func setContents(_ bytes: [UInt8], isData: (ArraySlice<UInt8>) -> Bool = { _ in true }) {
        let map = stride(from: 0, to: bytes.count, by: Self.unit).map { isData(bytes[$0..<min($0 + Self.unit, bytes.count)]) }
        state.withLock { state in
            state.bytes = bytes
            state.isData = map
        }
    }
    /// Every request that has reached the disk, in the order of arrival.
    package var requests: [Request] { state.withLock { $0.requests } }
    package func forgetRequests() { state.withLock { $0.requests.removeAll() } }
    /// Requests that broke the graph's promises to drivers; a test ends with none.
    package var violations: [String] { state.withLock { $0.violations } }
    /// Whether anything was written that neither FUA nor a flush has made durable.
    package var hasUnflushedData: Bool { state.withLock { $0.hasUnflushedData } }
    package var requestsInFlight: Int { inFlight.current }

    package func fail(_ fault: Fault) { state.withLock { $0.faults.append(fault) } }
    package func clearFaults() { state.withLock { $0.faults.removeAll() } }

    /// Requests of these kinds wait at the disk until `letGo`.
    package func hold(_ operations: Set<Operation>) { held.update { $0 = operations } }
    package func letGo() { held.update { $0 = [] } }
    /// Suspends until so many requests of all kinds have come to the disk since it was made.
    package func waitForArrivals(_ count: Int) async { await arrivals.wait { $0 >= count ? () : nil } }
    package var arrivalCount: Int { arrivals.withLock { $0 } }

    // MARK: Requests

    /// Whether requests may be answered without suspending.
    var isImmediate: Bool {
        if properties.suspends || !held.withLock({ $0.isEmpty }) { return false }
        return state.withLock { $0.faults.isEmpty }
    }

    func note(_ operation: Operation, _ range: GuestRange, _ flags: RequestFlags) {
        state.withLock { state in
            state.requests.append(Request(operation: operation, range: range, flags: flags))
            let isData = operation == .read || operation == .write
            if isData, !range.isAligned(to: properties.alignment) { state.violations.append("\(operation) of \(range) is not aligned to \(properties.alignment)") }
            if operation == .write, flags.contains(.compressed), let unit = properties.compressionUnit,
                range.start.rawValue % unit != 0 || (range.byteCount % unit != 0 && range.end.rawValue != state.bytes.count) {
                state.violations.append("compressed \(operation) of \(range) is not whole units of \(unit)")
            }
            if isData, range.byteCount > properties.longestTransfer { state.violations.append("\(operation) of \(range) is longer than \(properties.longestTransfer)") }
            if isData, range.isEmpty { state.violations.append("\(operation) of no bytes at \(range.start)") }
            if operation == .read || operation == .blockStatus, range.end.rawValue > state.bytes.count { state.violations.append("\(operation) of \(range) lies beyond the end") }
            if range.start.rawValue < 0 || range.byteCount < 0 { state.violations.append("\(operation) of \(range)") }
        }
        arrivals.update { $0 += 1 }
    }

    /// A request that takes its time: held, suspended or failed as told.
    func perform<Result: Sendable>(_ operation: Operation, _ range: GuestRange, _ flags: RequestFlags = [], _ body: (inout State) -> Result) async throws(BlockError) -> Result {
        inFlight.enter()
        defer { inFlight.leave() }
        note(operation, range, flags)
        await held.wait { $0.contains(operation) ? nil : () }
        if properties.suspends {
            let times = state.withLock { state in Int.random(in: 0..<4, using: &state.random) }
            for _ in 0..<times { await Task.yield() }
        }
        if let error = state.withLock({ $0.takeFault(operation) }) { throw error }
        return state.withLock { body(&$0) }
    }
}

extension SimulatedDisk.State {
    mutating func takeFault(_ operation: SimulatedDisk.Operation) -> BlockError? {
        for index in faults.indices where faults[index].operations.contains(operation) {
            if faults[index].skipped > 0 {
                faults[index].skipped -= 1
            } else if faults[index].count > 0 {
                faults[index].count -= 1
                return BlockError(faults[index].code, "injected failure of a \(operation.rawValue)")
            }
        }
        return nil
    }

    func read(_ target: IOVector, at offset: Int) {
        let inside = max(0, min(target.byteCount, bytes.count - offset))
        if inside > 0 { target.slice(at: 0, byteCount: inside).copyIn(bytes, from: offset) }
        if inside < target.byteCount { target.slice(at: inside, byteCount: target.byteCount - inside).zero() }
    }

    mutating func write(_ source: IOVector, at offset: Int, flags: RequestFlags) {
        grow(to: offset + source.byteCount)
        source.copyOut(into: &bytes, at: offset)
        mark(offset..<offset + source.byteCount, isData: true)
        if !flags.contains(.forceUnitAccess) { hasUnflushedData = true }
    }

    mutating func zero(_ range: Range<Int>, unmaps: Bool) {
        grow(to: range.upperBound)
        for index in range { bytes[index] = 0 }
        if !unmaps { return mark(range, isData: true) }
        let unit = SimulatedDisk.unit
        let (first, last) = (range.lowerBound.dividedRoundingUp(by: unit), range.upperBound / unit)
        if first < last { for index in first..<last { isData[index] = false } }
    }

    mutating func resize(to byteCount: Int) {
        grow(to: byteCount)
        if byteCount < bytes.count {
            bytes.removeLast(bytes.count - byteCount)
            isData.removeLast(isData.count - byteCount.dividedRoundingUp(by: SimulatedDisk.unit))
        }
    }

    private mutating func grow(to byteCount: Int) {
        if byteCount <= bytes.count { return }
        bytes += [UInt8](repeating: 0, count: byteCount - bytes.count)
        isData += [Bool](repeating: false, count: byteCount.dividedRoundingUp(by: SimulatedDisk.unit) - isData.count)
    }

    private mutating func mark(_ range: Range<Int>, isData value: Bool) {
        if range.isEmpty { return }
        for index in range.lowerBound / SimulatedDisk.unit...(range.upperBound - 1) / SimulatedDisk.unit { isData[index] = value }
    }
}
