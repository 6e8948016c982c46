import BlockGraph
import DriverTesting
import Foundation
import IOCore
import StorageCommands
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

/// A graph with one node under test, called `dut`, and the disks below it.
final class ConformanceBench: Sendable {
    let current: ConformanceCase
    let context: IOContext
    let graph: BlockGraph
    /// Whether requests at the simulated disks suspend.
    let suspends: Bool
    private let contents = Mutex(Contents())

    private struct Contents: Sendable {
        var disks: [SimulatedDisk] = []
        var directory: String?
        var servers: [ChildProcess] = []
        var endings: [@Sendable () -> Void] = []
    }

    private init(_ current: ConformanceCase, suspends: Bool) throws {
        self.current = current
        self.suspends = suspends
        context = try IOContext.startThread(name: "conformance")
        let catalog = DriverCatalog.registry
        graph = BlockGraph(context: context, drivers: current.row.hasSimulatedDisks ? catalog.replacing(SimulatedDiskDriver.self) : catalog)
    }

    /// The disks that were made for the node under test, in the order in which its row made them.
    var disks: [SimulatedDisk] { contents.withLock { $0.disks } }

    // MARK: For the rows of the table

    /// A new simulated disk, of the alignment of this case. Each alignment comes with other abilities, so that fallbacks are taken too.
    func disk(_ byteCount: Int, _ change: (inout SimulatedDisk.Properties) -> Void = { _ in }) -> SimulatedDisk {
        var properties = SimulatedDisk.Properties(alignment: current.alignment)
        properties.suspends = suspends
        properties.honoursForceUnitAccess = current.alignment == 512
        properties.writesZeroes = current.alignment != 512
        properties.longestTransfer = current.alignment == 4096 ? 16384 : .max
        properties.seed = UInt64(byteCount)
        change(&properties)
        let disk = SimulatedDisk(byteCount: byteCount.roundedUp(to: current.alignment), properties)
        contents.withLock { $0.disks.append(disk) }
        return disk
    }

    /// A new simulated disk as the child of the node under test.
    func child(_ byteCount: Int, name: String? = nil) -> BlockdevRef { .definition(disk(byteCount).options(named: name)) }

    /// A folder on a disk that takes O_DIRECT, for files; removed at the end.
    func folder() throws -> String {
        if let folder = contents.withLock({ $0.directory }) { return folder }
        let folder = "/tmp/strata-conformance-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        contents.withLock { $0.directory = folder }
        return folder
    }

    /// Starts a server program that lives until the end; `socket` takes connections when it is ready.
    func serve(_ program: String, _ arguments: [String], socket: String) throws {
        let process = try ChildProcess(program, arguments)
        contents.withLock { $0.servers.append(process) }
        let isUp = waitUntil { UnixSocket(path: socket) != nil || !process.isRunning }
        guard isUp, process.isRunning else { throw HarnessError("\(program) does not serve: \(try process.outputSoFar())") }
    }

    /// Runs `body` when the node is gone, before the folder goes.
    func atEnd(_ body: @escaping @Sendable () -> Void) { contents.withLock { $0.endings.append(body) } }

    // MARK: Running

    static let all = PermissionGrant(used: [.consistentRead, .write, .resize], shared: .all)
    static let writing = PermissionGrant(used: [.consistentRead, .write], shared: .all)

    /// Builds the node, hands a backend on it to `body`, takes everything down and looks at what the disks have to complain about.
    static func run(
        _ current: ConformanceCase, byteCount: Int = 280_000, suspends: Bool = false, grant: PermissionGrant = writing,
        _ body: @escaping @Sendable (ConformanceBench, BlockBackend) async throws -> Void
    ) async throws {
        let bench = try ConformanceBench(current, suspends: suspends)
        let byteCount = byteCount.roundedUp(to: max(current.alignment, 512)).dividedRoundingUp(by: current.row.sizeUnit) * current.row.sizeUnit
        let result: Result<Void, any Error> = await bench.onContext(bench.context) { bench in
            var options = try await current.row.build(bench, byteCount)
            options.nodeName = "dut"
            if options.discard == nil { options.discard = .unmap }
            try await bench.graph.add(options)
            let backend = try await bench.graph.makeBackend(named: "the conformance test", on: "dut", grant)
            let result: Result<Void, any Error>
            do { result = .success(try await body(bench, backend)) } catch { result = .failure(error) }
            for disk in bench.disks {
                disk.letGo()
                disk.clearFaults()
            }
            await bench.graph.release(backend)
            try await bench.graph.closeAll()
            try result.get()
        }
        for disk in bench.disks {
            #expect(disk.violations.isEmpty, "\(current.testDescription): requests reached the disk below that it does not take")
            disk.retire()
        }
        bench.context.stop()
        bench.context.join()
        for server in bench.contents.withLock({ $0.servers }) { server.send(SIGKILL) }
        for ending in bench.contents.withLock({ $0.endings }) { ending() }
        if let directory = bench.contents.withLock({ $0.directory }) { try FileManager.default.removeItem(atPath: directory) }
        try result.get()
    }

    /// Runs `body` as a task of an I/O context, as an export's requests do.
    func onContext<R: Sendable>(_ context: IOContext, _ body: @escaping @Sendable (ConformanceBench) async throws -> R) async -> Result<R, any Error> {
        await withCheckedContinuation { continuation in
            context.spawn { [self] in
                do { continuation.resume(returning: .success(try await body(self))) } catch { continuation.resume(returning: .failure(error)) }
            }
        }
    }
}

/// The error that `body` throws; nil when it succeeds.
func failure(_ body: () async throws -> Void) async throws -> BlockError? {
    do {
        try await body()
        return nil
    } catch let error as BlockError { return error }
}
