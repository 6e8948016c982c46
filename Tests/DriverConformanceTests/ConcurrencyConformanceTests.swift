import BlockGraph
import DriverTesting
import IOCore
import StrataBase
import Synchronization
import Testing

@Suite("driver conformance: at the same time")
struct ConcurrencyConformanceTests {
    private static let byteCount = 64 << 10

    @Test("overlapping requests take effect in some order, each wholly or beside others, and none is lost", arguments: ConformanceCase.all.filter(\.row.keepsData))
    func overlap(current: ConformanceCase) async throws {
        for seed in 1...2 as ClosedRange<UInt64> {
            try await ConformanceBench.run(current, byteCount: Self.byteCount, suspends: true) { bench, backend in
                let history = OverlapHistory(byteCount: backend.length)
                let second = try IOContext.startThread(name: "second")
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for worker in 0..<6 as Range<UInt64> {
                        group.addTask {
                            let context = worker % 2 == 0 ? bench.context : second
                            try await bench.onContext(context) { _ in
                                try await history.exercise(backend, seed: seed * 100 + worker, rounds: 40)
                            }.get()
                        }
                    }
                    try await group.waitForAll()
                }
                try await history.readAll(backend)
                #expect(history.problems.isEmpty, "seed \(seed)")
                second.stop()
                second.join()
            }
        }
    }

    @Test("a drained section waits for the requests that run, keeps others out, and lets them go on", arguments: ConformanceCase.all)
    func drain(current: ConformanceCase) async throws {
        try await ConformanceBench.run(current, byteCount: Self.byteCount, suspends: true) { bench, backend in
            let length = backend.length
            let isOver = Flag()
            let second = try IOContext.startThread(name: "second")
            try await withThrowingTaskGroup(of: Void.self) { group in
                for worker in 0..<3 as Range<UInt64> {
                    group.addTask {
                        try await bench.onContext(worker == 0 ? bench.context : second) { _ in
                            let history = OverlapHistory(byteCount: length)
                            var round: UInt64 = 0
                            while !isOver.isSet {
                                try await history.exercise(backend, seed: worker &* 1000 &+ round, rounds: 3)
                                round += 1
                                await Task.yield()
                            }
                        }.get()
                    }
                }
                for _ in 0..<5 {
                    try await bench.graph.withDrained(["dut"]) { () async throws(BlockError) in
                        let before = bench.disks.map(\.arrivalCount)
                        #expect(bench.disks.allSatisfy { $0.requestsInFlight == 0 })
                        for _ in 0..<20 { await Task.yield() }
                        #expect(bench.disks.map(\.arrivalCount) == before, "a request came to a disk below a drained node")
                    }
                    // Requests go on afterwards.
                    for disk in bench.disks.prefix(1) { await disk.waitForArrivals(disk.arrivalCount + 2) }
                }
                isOver.set()
                try await group.waitForAll()
            }
            second.stop()
            second.join()
        }
    }

    @Test("a drained section does not begin while a request is held up below", arguments: ConformanceCase.overSimulatedDisks)
    func drainWaits(current: ConformanceCase) async throws {
        try await ConformanceBench.run(current, byteCount: Self.byteCount) { bench, backend in
            try await backend.writeArray([UInt8](repeating: 1, count: 8192), at: 0)
            try await backend.flush()
            for disk in bench.disks { disk.hold([.write, .writeZeroes]) }
            let arrived = bench.disks.reduce(0) { $0 + $1.arrivalCount }
            let isDrained = Flag()
            async let writing: Void = backend.writeArray([UInt8](repeating: 2, count: 8192), at: 0)
            while bench.disks.reduce(0, { $0 + $1.arrivalCount }) == arrived { await Task.yield() }
            async let draining: Void = bench.graph.withDrained(["dut"]) { () async throws(BlockError) in isDrained.set() }
            for _ in 0..<50 { await Task.yield() }
            #expect(!isDrained.isSet)
            for disk in bench.disks { disk.letGo() }
            try await writing
            try await draining
            if current.row.keepsData { #expect(try await backend.readArray(at: 0, 8192).allSatisfy { $0 == 2 }) }
        }
    }
}

/// Something that happens once.
final class Flag: Sendable {
    private let value = Atomic<Bool>(false)
    var isSet: Bool { value.load(ordering: .acquiring) }
    func set() { value.store(true, ordering: .releasing) }
}
