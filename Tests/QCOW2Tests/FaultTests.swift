import BlockGraph
import Foundation
import IOCore
import QCOW2Testing
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

/// Every call that the driver makes to its file fails once.
@Suite("qcow2 when the file below fails")
struct FaultTests {
    static let histories: [[CrashProof.Operation]] = [
        [
            .write(1, 4), .compressed(9), .create, .write(2, 3), .flush, .discard(1, 3), .compressed(10), .flush, .apply, .write(64, 4), .create, .delete, .resize(140),
            .write(130, 4), .zero(1, 5, unmap: true), .flush, .resize(65), .delete, .flush,
        ],
        [
            .discard(0, 8), .flush, .write(0, 8), .write(60, 6), .create, .create, .zero(60, 4, unmap: false), .write(61, 2), .apply, .delete, .flush, .compressed(3),
            .compressed(4), .delete, .write(3, 1), .flush, .write(20, 6),
        ],
        [.write(1, 4), .bitmap, .write(6, 2), .flush, .amend, .write(66, 3), .bitmap, .create, .resize(140), .write(130, 2), .bitmap, .discard(1, 4), .amend, .delete],
        [
            .write(1, 4), .compressed(10), .create, .write(2, 3), .flush, .apply, .zero(1, 5, unmap: true), .discard(32, 32), .resize(140), .write(130, 4), .amend, .delete,
            .bitmap, .write(6, 2), .flush, .resize(65), .bitmap,
        ],
    ]

    struct Case: Sendable, CustomTestStringConvertible {
        let kind: CrashProof.ImageKind
        let history: Int
        var testDescription: String { "\(kind), history \(history)" }
    }

    /// Every history on the plain image; on the others one that has every kind of operation.
    static let cases = histories.indices.map { Case(kind: .sound, history: $0) } + CrashProof.ImageKind.allCases.filter { $0 != .sound }.map { Case(kind: $0, history: 3) }

    @Test("the operation reports it, doing it again works, and the image is what it should be", arguments: cases)
    func everyCall(test: Case) async throws {
        let contents = SectorContents()
        let start = try CrashProof.start(contents, test.kind)
        let operations = Self.histories[test.history]
        // First without a fault, to know how many calls there are.
        let dry = Recorder(disk: start.disk)
        defer { dry.forget() }
        dry.state.withLock { $0.countsReads = true }
        _ = try await onContext { context in try await CrashProof.play(operations, start, dry, context, salt: 0) }
        let calls = dry.state.withLock { $0.calls }
        try #require(calls > 150)
        for call in 1...calls {
            for (number, fault) in CrashProof.Fault.allCases.enumerated() where extendedRun || (call + test.history) % CrashProof.Fault.allCases.count == number {
                if let problem = try await Self.failing(call, fault, operations, start, contents) {
                    throw ToolFailure(description: "\(test), call \(call) of \(calls) fails with \(fault): \(problem)")
                }
            }
        }
    }

    static func failing(
        _ call: Int, _ fault: CrashProof.Fault, _ operations: [CrashProof.Operation], _ start: CrashProof.Start, _ contents: SectorContents
    ) async throws -> String? {
        let backing = contents.numbers(of: start.backing)
        let recorder = Recorder(disk: start.disk)
        defer { recorder.forget() }
        recorder.state.withLock { state in
            (state.failAt, state.isRecording, state.countsReads) = (call, false, true)
            (state.failure, state.failsHalfway) = (fault.error, fault == .short)
        }
        let played: CrashProof.Played
        do {
            played = try await onContext { context in try await CrashProof.play(operations, start, recorder, context, salt: 0, retries: true) }
        } catch {
            // Opening or closing failed, which has nobody to retry it; what was there before must be there still.
            let disk = recorder.state.withLock { $0.disk }
            do { _ = try IndependentCheck(contents.numbers(of: disk), contents, over: backing) } catch { return "\(error), after opening or closing failed" }
            return nil
        }
        let expected = CrashProof.models(start.model, played, contents).last ?? start.model
        let check: IndependentCheck
        do { check = try IndependentCheck(contents.numbers(of: recorder.state.withLock { $0.disk }), contents, over: backing) } catch { return "\(error)" }
        if check.guest != expected.sectors {
            let different = zip(check.guest, expected.sectors).enumerated().filter { $0.element.0 != $0.element.1 }.map(\.offset)
            return "sectors \(different) differ; played \(played.operations)"
        }
        if let problem = CrashProof.judge(recorder.state.withLock { contents.numbers(of: $0.disk) }, [expected], contents, over: backing) { return problem }
        if check.snapshots != expected.snapshots { return "the snapshots differ: \(check.snapshots.map(\.id)) instead of \(expected.snapshots.map(\.id))" }
        return nil
    }
}
