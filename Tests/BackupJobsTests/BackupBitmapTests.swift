import BackupJobs
import BlockGraph
import CopyFilters
import DriverTesting
import IOCore
import JobCore
import StorageSchema
import StrataBase
import Testing

/// A disk and a target in memory, and jobs between them.
private final class BackupBench: Sendable {
    static let size = 40 * 65536
    let context: IOContext
    let graph: BlockGraph
    let jobs: JobRegistry
    let disk = SimulatedDisk(byteCount: BackupBench.size)
    let target = SimulatedDisk(byteCount: BackupBench.size)

    private init() throws {
        context = try IOContext.startThread(name: "backup test")
        graph = BlockGraph(context: context, drivers: DriverRegistry([SimulatedDiskDriver.self, CopyBeforeWriteDriver.self]))
        jobs = JobRegistry(graph: graph)
    }

    static func run(_ body: @escaping @Sendable (BackupBench) async throws -> Void) async throws {
        let bench = try BackupBench()
        let result: Result<Void, any Error> = await withCheckedContinuation { continuation in
            bench.context.spawn {
                do {
                    try await bench.graph.add(bench.disk.options(named: "disk"))
                    try await bench.graph.add(bench.target.options(named: "target"))
                    try await body(bench)
                    await bench.jobs.cancelAll()
                    try await bench.graph.closeAll()
                    continuation.resume(returning: .success(()))
                } catch { continuation.resume(returning: .failure(error)) }
            }
        }
        bench.context.stop()
        bench.context.join()
        bench.disk.retire()
        bench.target.retire()
        try result.get()
    }

    func guest() async throws -> BlockBackend {
        try await graph.makeBackend(named: "guest", on: "disk", PermissionGrant(used: [.consistentRead, .write], shared: .all))
    }

    /// Makes a backup while nobody writes, as the command does.
    func backUp(_ sync: MirrorSyncMode, bitmap: String?, _ mode: BitmapSyncMode?, speed: Int = 0) async throws -> Job {
        var options = BackupOptions(source: "disk", target: "target", sync: sync)
        (options.bitmap, options.bitmapMode) = (bitmap, mode)
        options.workers = 2
        try options.settle()
        var settings = JobSettings(id: "backup", type: .backup)
        settings.dismissesAutomatically = false
        settings.speed = speed
        let (graph, final) = (graph, options)
        return try await jobs.start(settings) { job async throws(BlockError) in try await BackupJob.make(final, job, in: graph) }
    }

    func conclude(_ job: Job) async throws -> BlockError? {
        await job.waitUntilConcluded()
        let failure = job.state.failure
        try await jobs.dismiss(job)
        return failure
    }
}

@Suite("backups and bitmaps")
struct BackupBitmapTests {
    @Test("five backups of what has changed, guests writing meanwhile, each make the target the disk of their moment", arguments: 1...6 as ClosedRange<UInt64>)
    func chain(seed: UInt64) async throws {
        try await BackupBench.run { bench in
            let guest = try await bench.guest()
            let bitmap = try await bench.graph.addBitmap(named: "b", to: "disk", granularity: 65536)
            var model = FlatModel(byteCount: BackupBench.size, seed: seed)
            for _ in 0..<10 { try #require(try await model.step(on: guest) == nil) }
            for round in 0..<5 {
                let contents = bench.disk.contents
                let changed = bitmap.dirtyByteCount
                let job = try await bench.backUp(round == 0 ? .full : .incremental, bitmap: "b", round == 0 ? .always : nil)
                #expect(bitmap.isBusy)
                for _ in 0..<12 { try #require(try await model.step(on: guest) == nil) }
                #expect(try await bench.conclude(job) == nil)
                #expect(firstDifference(bench.target.contents, contents) == nil, "round \(round), \(changed) bytes changed, seed \(seed)")
                #expect(!bitmap.isBusy)
                #expect(await bench.graph.allNodes.map(\.name).sorted() == ["disk", "target"])
            }
            #expect(try await model.difference(to: guest) == nil)
            await bench.graph.release(guest)
        }
    }

    @Test("after an end of each kind the bitmap has what the next backup must copy", arguments: [BitmapSyncMode.onSuccess, .never, .always], [false, true])
    func modes(_ mode: BitmapSyncMode, fails: Bool) async throws {
        try await BackupBench.run { bench in
            let guest = try await bench.guest()
            let bitmap = try await bench.graph.addBitmap(named: "b", to: "disk", granularity: 65536)
            try await guest.writeArray([UInt8](repeating: 1, count: 8 * 65536), at: 4 * 65536)
            if fails { bench.target.fail(.init([.write], .noSpace, skipped: 1)) }
            let job = try await bench.backUp(.bitmap, bitmap: "b", mode)
            try await guest.writeArray([1], at: 30 * 65536)
            let failure = try await bench.conclude(job)
            #expect((failure != nil) == fails)
            bench.target.clearFaults()
            let left = bitmap.bits
            #expect(left.isDirty(at: GuestOffset(30 * 65536)))
            let old = (4..<12).filter { left.isDirty(at: GuestOffset($0 * 65536)) }
            switch (mode, fails) {
            case (.onSuccess, false), (.always, false): #expect(old.isEmpty)
            case (.never, _), (.onSuccess, true): #expect(old == Array(4..<12))
            case (.always, true):
                // What was copied is not marked any more; the rest is.
                for index in 4..<12 where !old.contains(index) {
                    #expect(bench.target.contents[index * 65536..<(index + 1) * 65536].allSatisfy { $0 == 1 }, "cluster \(index)")
                }
                #expect(!old.isEmpty)
            }
            #expect(left.dirtyCount == old.count + 1)
            await bench.graph.release(guest)
        }
    }

    @Test("a backup that cannot begin leaves the graph and the bitmap as they were")
    func refused() async throws {
        try await BackupBench.run { bench in
            let bitmap = try await bench.graph.addBitmap(named: "b", to: "disk", granularity: 65536)
            // Somebody does not bear that others write to the target.
            let rival = try await bench.graph.makeBackend(named: "rival", on: "target", PermissionGrant(used: .consistentRead, shared: .consistentRead))
            let error = await #expect(throws: BlockError.self) { _ = try await bench.backUp(.incremental, bitmap: "b", nil) }
            #expect(error?.code == .permissionConflict)
            #expect(!bitmap.isBusy)
            #expect(await bench.graph.allNodes.count == 2)
            await bench.graph.release(rival)
            let job = try await bench.backUp(.incremental, bitmap: "b", nil, speed: 1)
            await #expect(throws: BlockError.self) { _ = try await bench.backUp(.full, bitmap: nil, nil) }
            try await bench.jobs.cancel(job, isForced: true)
            #expect(try await bench.conclude(job)?.code == .cancelled || bitmap.bits.isEmpty)
            #expect(!bitmap.isBusy)
        }
    }
}
