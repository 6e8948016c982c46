import BlockGraph
import DriverTesting
import IOCore
import StorageSchema
import StrataBase
import Testing

@Suite("driver conformance: reopening")
struct ReopenConformanceTests {
    private static let byteCount = 64 << 10

    /// What a reopen may not change when it is refused.
    private static func shape(_ graph: BlockGraph) async -> [String] {
        let state = await graph.snapshot
        return state.order.compactMap { state.nodes[$0] }.map { record in
            let edges = record.children.compactMap { state.edges[$0] }.map { "\($0.child.name)=\($0.target)/\($0.grant)" }
            return "\(record.node.name) \(record.node.options) \(String(describing: record.node.definition)) \(edges) \(record.cumulative)"
        }
    }

    /// Reopens the node under test with the options that it was opened with, and one more said otherwise.
    private static func reopen(_ bench: ConformanceBench, readOnly: Bool? = nil) async throws(BlockError) {
        guard var definition = await bench.graph.node(named: "dut")?.definition else { throw BlockError(.notFound, "nothing is under test") }
        if let readOnly { definition.readOnly = readOnly }
        try await bench.graph.reopen([definition])
    }

    @Test("a node is reopened under its requests: none fails, none is lost", arguments: ConformanceCase.all)
    func underLoad(current: ConformanceCase) async throws {
        try await ConformanceBench.run(current, byteCount: Self.byteCount, suspends: true) { bench, backend in
            guard backend.node.driver is any Reopening else { return try await Self.checkRefusal(bench) }
            let history = OverlapHistory(byteCount: backend.length)
            let isOver = Flag()
            let second = try IOContext.startThread(name: "second")
            try await withThrowingTaskGroup(of: Void.self) { group in
                for worker in 0..<3 as Range<UInt64> {
                    group.addTask {
                        try await bench.onContext(worker == 0 ? bench.context : second) { _ in
                            var round: UInt64 = 0
                            // The judgement of a history takes time that grows with its length.
                            while !isOver.isSet {
                                try await history.exercise(backend, seed: worker &* 1000 &+ round, rounds: 2)
                                round += 1
                                await Task.yield()
                            }
                        }.get()
                    }
                }
                for _ in 0..<4 {
                    try await Self.reopen(bench)
                    // Somebody writes.
                    let before = await Self.shape(bench.graph)
                    let refusal = try await failure { try await Self.reopen(bench, readOnly: true) }
                    #expect(refusal?.code == .readOnly, "\(String(describing: refusal))")
                    #expect(await Self.shape(bench.graph) == before)
                    for disk in bench.disks.prefix(1) { await disk.waitForArrivals(disk.arrivalCount + 2) }
                }
                isOver.set()
                try await group.waitForAll()
            }
            try await history.readAll(backend)
            if current.row.keepsData { #expect(history.problems.isEmpty) }
            second.stop()
            second.join()
        }
    }

    @Test("a node becomes read-only under its readers and writable again, and keeps its data", arguments: ConformanceCase.all)
    func readOnly(current: ConformanceCase) async throws {
        try await ConformanceBench.run(current, byteCount: Self.byteCount, suspends: true) { bench, backend in
            guard backend.node.driver is any Reopening else { return try await Self.checkRefusal(bench) }
            var model = FlatModel(byteCount: backend.length, seed: 11, forgets: !current.row.keepsData)
            for round in 0..<3 {
                for _ in 0..<15 {
                    let problem = try await model.step(on: backend)
                    try #require(problem == nil, "round \(round)")
                }
                try await bench.graph.setGrant(PermissionGrant(used: .consistentRead, shared: .all), of: backend)
                if current.row.isReadableReadOnly {
                    try await Self.turn(bench, backend, model)
                } else {
                    let before = await Self.shape(bench.graph)
                    let refusal = try await failure { try await Self.reopen(bench, readOnly: true) }
                    #expect(refusal?.code == .readOnly, "\(String(describing: refusal))")
                    #expect(await Self.shape(bench.graph) == before)
                }
                try await bench.graph.setGrant(ConformanceBench.writing, of: backend)
            }
            let difference = try await model.difference(to: backend)
            #expect(difference == nil)
        }
    }

    /// Makes a node that is read read-only, and writable again.
    private static func turn(_ bench: ConformanceBench, _ backend: BlockBackend, _ model: FlatModel) async throws {
        let expected = model.bytes
        let isOver = Flag()
        // A reopen that fails must not leave the reader reading for ever.
        defer { isOver.set() }
        async let reading: Void = bench.onContext(bench.context) { _ in
            while !isOver.isSet {
                let found = try await backend.readArray(at: 100, 9000)
                let difference = firstDifference(found, Array(expected[100..<9100]))
                try #require(difference == nil)
                await Task.yield()
            }
        }.get()
        try await reopen(bench, readOnly: true)
        #expect(backend.node.options.isReadOnly)
        let refusal = try await failure { try await bench.graph.setGrant(ConformanceBench.writing, of: backend) }
        #expect(refusal?.code == .readOnly, "\(String(describing: refusal))")
        let difference = try await model.difference(to: backend)
        #expect(difference == nil)
        try await reopen(bench, readOnly: false)
        #expect(!backend.node.options.isReadOnly)
        isOver.set()
        try await reading
    }

    /// Of a driver that cannot: refused by name, and nothing has changed.
    private static func checkRefusal(_ bench: ConformanceBench) async throws {
        let before = await shape(bench.graph)
        let refusal = try await failure { try await reopen(bench) }
        #expect(refusal?.code == .unsupported && refusal?.message.contains("'dut' does not support reopening files") == true, "\(String(describing: refusal))")
        #expect(await shape(bench.graph) == before)
    }
}
