import BlockGraph
import Foundation
import IOCore
import QCOW2Testing
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

/// Docs/CrashConsistency.md, proven: a guest's operations over the driver over a disk with a volatile cache, and after a crash at any point an image that an
/// independent checker finds sound and that holds what was flushed.
@Suite("qcow2 whenever the power fails")
struct CrashProofTests {
    @Test("after any three operations, at every point and in every order, nothing is corrupt and nothing flushed is lost", arguments: CrashProof.alphabet)
    func exhaustive(first: CrashProof.Operation) async throws {
        let judged = try await CrashProof.judgeTriples(beginningWith: first).states
        #expect(judged > 7200, "\(judged) states")
    }

    @Test(
        "nor of an image whose last writer left its refcounts behind, nor where parts of clusters are copied from a backing file, nor with subclusters",
        arguments: [CrashProof.ImageKind.dirty, .overlay, .subclusters], extendedRun ? CrashProof.alphabet : [.write(2, 2), .create])
    func exhaustiveOfOtherImages(kind: CrashProof.ImageKind, first: CrashProof.Operation) async throws {
        let judged = try await CrashProof.judgeTriples(beginningWith: first, kind).states
        #expect(judged > 7200, "\(judged) states")
    }

    /// `STRATA_CRASH_SEED=number` replays one; `Scripts/crash-search` tries until ten million states were judged.
    static let seeds: [UInt64] = {
        let environment = ProcessInfo.processInfo.environment
        if let seed = environment["STRATA_CRASH_SEED"].flatMap({ UInt64($0) }) { return [seed] }
        return Array(0..<(environment["STRATA_EXTENDED"] == nil ? 16 : 200))
    }()

    @Test("after long random histories the same, also where a call to the file fails once and the guest tries again", arguments: seeds)
    func random(seed: UInt64) async throws {
        let judged = try await CrashProof.judgeRandomHistory(seed: seed, limit: 24)
        #expect(judged > 500, "\(judged) states")
    }

    @Test("the judge is not blind: without the driver's flushes, and with refcounts or flags that are wrong, it finds fault")
    func judgeSees() async throws {
        let contents = SectorContents()
        let start = try CrashProof.start(contents)
        let (initial, model) = (start.disk, start.model)
        let operations: [CrashProof.Operation] = [.write(1, 4), .flush, .discard(1, 3), .flush, .write(10, 6), .create, .write(2, 2), .flush]
        var played = try await onContext { context in
            let recorder = Recorder(disk: initial)
            defer { recorder.forget() }
            return try await CrashProof.play(operations, start, recorder, context, salt: 3)
        }
        var random = SeededGenerator(seed: 5)
        #expect(try CrashProof.crashEverywhere(start, played, contents, limit: 64, &random) > 50)
        played.log = played.log.map { if case .flush = $0 { .write(offset: 0, bytes: []) } else { $0 } }
        let unordered = played
        #expect(throws: ToolFailure.self) { _ = try CrashProof.crashEverywhere(start, unordered, contents, limit: 64, &random) }

        // A bitmap is believed when it was stored, and one that forgets a sector is found out.
        let (remembered, place) = try await onContext { context in
            let recorder = Recorder(disk: initial)
            defer { recorder.forget() }
            _ = try await CrashProof.play([.bitmap, .write(1, 2), .bitmap, .flush], start, recorder, context, salt: 5)
            let disk = recorder.state.withLock { $0.disk }
            // The bits of sectors 1 and 2 alone, in a cluster of their own.
            let place = stride(from: 0, to: disk.count, by: 512).first { disk[$0] == 6 && disk[$0 + 1..<min($0 + 512, disk.count)].allSatisfy { $0 == 0 } }
            return (disk, place)
        }
        var expected = model
        expected.bitmapBase = model.sectors
        let stored = try IndependentCheck(contents.numbers(of: remembered), contents)
        expected.sectors = stored.guest
        #expect(stored.bitmaps.count == 1 && stored.bitmaps[0].isInUse == false && stored.bitmaps[0].isDirty.prefix(4) == [false, true, true, false])
        #expect(CrashProof.judge(contents.numbers(of: remembered), [expected], contents) == nil)
        var forgetful = remembered
        forgetful[try #require(place)] = 2
        #expect(CrashProof.judge(contents.numbers(of: forgetful), [expected], contents)?.contains("is clean") == true)

        func word(_ offset: Int) -> Int { initial[offset..<(offset + 8)].reduce(0) { $0 << 8 | Int($1) } }
        let (block, l1) = (word(word(48)), word(40))
        for offset in [block + 1, block + 2 * (l1 / 512) + 1, l1] {
            var damaged = initial
            damaged[offset] ^= offset == l1 ? 0x80 : 1
            #expect(throws: IndependentCheck.Problem.self) { _ = try IndependentCheck(contents.numbers(of: damaged), contents) }
        }
    }
}
