package import BlockGraph
import Foundation
package import IOCore
package import StorageSchema
package import StrataBase
package import Synchronization

/// What reaches a file below the driver under test, in order.
package enum RecordedOperation: Sendable, CustomStringConvertible {
    case write(offset: Int, bytes: [UInt8])
    case resize(Int)
    case flush

    package var description: String {
        switch self {
        case .write(let offset, let bytes): "write \(offset)+\(bytes.count)"
        case .resize(let byteCount): "resize \(byteCount)"
        case .flush: "flush"
        }
    }
}

/// A filter over a memory disk that records writes, flushes and discards and can fail one of its calls. It stands in for `null-co`, whose options it uses:
/// the size says which `Recorder` it belongs to.
package final class RecordingDriver: BlockDriver, Flushing, Resizing, Discarding {
    package static let formatName = "null-co"
    package static let kind = DriverKind.protocol

    package let recorder: Recorder
    package init(_ recorder: Recorder) { self.recorder = recorder }

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .nullCo(let options) = options.branch, let recorder = Recorder.find(options.size ?? 0) else {
            throw BlockError(.notFound, "no recorder of that number")
        }
        return RecordingDriver(recorder)
    }

    package var length: Int { recorder.state.withLock { $0.disk.count } }

    package func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool {
        recorder.state.withLock { state in
            guard !state.isSlow, !state.countsReads else { return false }
            recorder.copy(state.disk, to: target, at: offset.rawValue)
            return true
        }
    }

    package func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        await Task.yield()
        if recorder.state.withLock({ $0.countsReads }) {
            try recorder.countCall()
            recorder.state.withLock { $0.bytesRead += target.byteCount }
        }
        recorder.state.withLock { recorder.copy($0.disk, to: target, at: offset.rawValue) }
    }

    package func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool {
        if recorder.state.withLock({ $0.isSlow || $0.failAt != nil }) { return false }
        do { try recorder.write(source, at: offset.rawValue) } catch { return false }
        return true
    }

    package func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        await Task.yield()
        try recorder.write(source, at: offset.rawValue)
    }

    package func flush() async throws(BlockError) {
        await Task.yield()
        try recorder.countCall()
        recorder.state.withLock { state in if state.isRecording { state.record(.flush) } }
    }

    /// What is punched out of a file reads as zeroes.
    package func discard(_ range: GuestRange) async throws(BlockError) -> Support {
        let inside = max(0, min(range.end.rawValue, length) - range.start.rawValue)
        if inside <= 0 { return .done }
        let zeroes = IOBuffer(zeroed: inside)
        defer { withExtendedLifetime(zeroes) {} }
        try recorder.write(zeroes.vector, at: range.start.rawValue)
        return .done
    }

    package func resize(to byteCount: Int, exact: Bool, preallocation: PreallocMode) async throws(BlockError) {
        try recorder.countCall()
        recorder.state.withLock { state in
            if state.isRecording { state.record(.resize(byteCount)) }
            if byteCount < state.disk.count { state.disk.removeLast(state.disk.count - byteCount) }
            if byteCount > state.disk.count { state.disk += [UInt8](repeating: 0, count: byteCount - state.disk.count) }
        }
    }
}

/// The memory disk, the log and the fault of one `RecordingDriver`.
package final class Recorder: Sendable {
    package struct State: Sendable {
        package var disk: [UInt8]
        package var log: [RecordedOperation] = []
        /// When each operation of the log came, by a clock that all recorders share.
        package var sequence: [Int] = []
        package var isRecording = true
        /// Every request suspends.
        package var isSlow = true
        /// Writes, flushes, resizes and discards so far, and reads if they count.
        package var calls = 0
        package var countsReads = false
        /// By reads that count.
        package var bytesRead = 0
        /// The number of the call that fails, once.
        package var failAt: Int?
        package var failure = BlockError(.io, "injected failure")
        /// A write that fails has written its first half, in whole sectors, and the only sector wholly.
        package var failsHalfway = false

        package mutating func record(_ operation: RecordedOperation) {
            log.append(operation)
            sequence.append(Recorder.clock.add(1, ordering: .sequentiallyConsistent).newValue)
        }
    }

    package let state: Mutex<State>
    package let number: Int

    private static let all = Mutex<[Int: Recorder]>([:])
    private static let counter = Atomic<Int>(1)
    fileprivate static let clock = Atomic<Int>(0)
    /// The time of the last operation that any recorder has seen.
    package static var now: Int { clock.load(ordering: .sequentiallyConsistent) }

    package init(disk: [UInt8]) {
        state = Mutex(State(disk: disk))
        number = Self.counter.add(1, ordering: .relaxed).newValue
        Self.all.withLock { $0[number] = self }
    }

    package func forget() { Self.all.withLock { $0[number] = nil } }
    package static func find(_ number: Int) -> Recorder? { all.withLock { $0[number] } }

    package func countCall() throws(BlockError) {
        let failure = state.withLock { state in
            state.calls += 1
            return state.failAt == state.calls ? state.failure : nil
        }
        if let failure { throw failure }
    }

    package func copy(_ disk: [UInt8], to target: IOVector, at offset: Int) {
        let inside = max(0, min(target.byteCount, disk.count - offset))
        disk.withUnsafeBytes { raw in
            if inside > 0 { target.copyIn(UnsafeRawBufferPointer(rebasing: raw[offset..<(offset + inside)]).bytes, at: 0) }
        }
        if inside < target.byteCount { target.slice(at: inside, byteCount: target.byteCount - inside).zero() }
    }

    package func write(_ source: IOVector, at offset: Int) throws(BlockError) {
        do throws(BlockError) { try countCall() } catch {
            if state.withLock({ $0.failsHalfway }) {
                // Disks tear at sectors: what lies within one has happened although it failed.
                let half = (offset + source.byteCount / 2).roundedDown(to: 512) - offset
                store(half > 0 ? source.slice(at: 0, byteCount: half) : source, at: offset)
            }
            throw error
        }
        store(source, at: offset)
    }

    private func store(_ source: IOVector, at offset: Int) {
        var copy = [UInt8](repeating: 0, count: source.byteCount)
        copy.withUnsafeMutableBytes { raw in
            var span = raw.mutableBytes
            source.copyOut(at: 0, into: &span)
        }
        state.withLock { state in
            if offset + copy.count > state.disk.count {
                state.disk += [UInt8](repeating: 0, count: offset + copy.count - state.disk.count)
            }
            state.disk.replaceSubrange(offset..<(offset + copy.count), with: copy)
            if state.isRecording { state.record(.write(offset: offset, bytes: copy)) }
        }
    }

    /// Options for a qcow2 image on this disk.
    /// - Parameter backing: has the backing file.
    package func imageOptions(readOnly: Bool = false, l2CacheSize: Int? = nil, over backing: Recorder? = nil) -> BlockdevOptions {
        var file = BlockdevOptions(.nullCo(BlockdevOptionsNull(size: number)))
        file.discard = .unmap
        var options = BlockdevOptions(
            .qcow2(BlockdevOptionsQcow2(
                file: .definition(file), backing: backing.map { .definition(BlockdevOptions(.nullCo(BlockdevOptionsNull(size: $0.number)))) } ?? .null, l2CacheSize: l2CacheSize)))
        options.nodeName = "disk"
        options.readOnly = readOnly
        options.discard = .unmap
        return options
    }
}

extension CrashProof {
    /// How a call to the file fails.
    package enum Fault: CaseIterable, Sendable {
        case io, noSpace, quota
        /// A write that fails has written its first half, in whole sectors, and the only sector wholly.
        case short

        package var error: BlockError {
            switch self {
            case .io: BlockError(.io, "injected failure")
            case .noSpace: BlockError(.noSpace, "injected failure")
            case .quota: BlockError(.system(122), "injected failure")
            case .short: BlockError(.io, "injected failure in the middle")
            }
        }
    }
}
