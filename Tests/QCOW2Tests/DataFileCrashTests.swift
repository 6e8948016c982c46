import BlockGraph
import Foundation
import IOCore
import QCOW2
import QCOW2Testing
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

/// Image and data file on two disks, each with a volatile cache of its own: what one has kept says nothing about the other.
@Suite("qcow2 with a data file after a crash")
struct DataFileCrashTests {
    private static func options(_ image: Recorder, _ data: Recorder, readOnly: Bool = false) -> BlockdevOptions {
        let options = image.imageOptions(readOnly: readOnly, l2CacheSize: 8192)
        guard case .qcow2(var own) = options.branch else { return options }
        var dataOptions = BlockdevOptions(.nullCo(BlockdevOptionsNull(size: data.number)))
        dataOptions.discard = .unmap
        own.dataFile = .definition(dataOptions)
        return BlockdevOptions(.qcow2(own), nodeName: options.nodeName, discard: options.discard, readOnly: readOnly)
    }

    private static func create(_ image: Recorder, _ data: Recorder, size: Int, clusterSize: Int, hasSubclusters: Bool, isRaw: Bool) async throws {
        try await onContext { context in
            let graph = BlockGraph(context: context, drivers: DriverRegistry(testDrivers))
            var backends: [BlockBackend] = []
            for (name, recorder) in [("file", image), ("data", data)] {
                var options = BlockdevOptions(.nullCo(BlockdevOptionsNull(size: recorder.number)))
                options.nodeName = name
                try await graph.add(options)
                backends.append(try await graph.makeBackend(named: name, on: name, PermissionGrant(used: .all, shared: .all)))
            }
            try await QCOW2Driver.create(
                BlockdevCreateOptionsQcow2(
                    file: .reference("file"), dataFile: .reference("data"), dataFileRaw: isRaw, extendedL2: hasSubclusters, size: size, clusterSize: clusterSize),
                in: backends[0], dataFile: backends[1])
            for backend in backends { await graph.release(backend) }
            try await graph.closeAll()
        }
    }

    @Test("no order of losing unflushed writes on either disk corrupts the image or loses flushed data", arguments: 0..<6)
    func anyCrash(seed: UInt64) async throws {
        let (hasSubclusters, isRaw) = (seed % 3 == 1, seed % 2 == 1)
        let clusterSize = hasSubclusters ? 16384 : [512, 4096][Int(seed) % 2]
        let size = 32 * clusterSize
        let (image, data) = (Recorder(disk: []), Recorder(disk: []))
        defer {
            image.forget()
            data.forget()
        }
        try await Self.create(image, data, size: size, clusterSize: clusterSize, hasSubclusters: hasSubclusters, isRaw: isRaw)
        let initial = [image, data].map { recorder in
            recorder.state.withLock { state in
                (state.log, state.sequence) = ([], [])
                return state.disk
            }
        }
        let recorders = [image, data]
        let steps = try await onContext { context in
            try await withImage(Self.options(image, data), context) { disk in
                let model = DiskModel(size: size, clusterSize: hasSubclusters ? clusterSize / 32 : clusterSize, seed: seed)
                return try await CrashTests.play(disk, model, 40, compresses: false) { Recorder.now }
            }
        }
        let times = recorders.flatMap { $0.state.withLock { $0.sequence } }.sorted()
        var random = SeededGenerator(seed: seed ^ 0x1234)
        for time in times {
            let disks = recorders.enumerated().map { number, recorder in
                let log = recorder.state.withLock { state in Array(zip(state.log, state.sequence).prefix { $0.1 <= time }.map(\.0)) }
                return CrashTests.crash(initial[number], log[...], &random)
            }
            let problem = try await Self.judge(disks, after: time, steps, size, isRaw: isRaw)
            if let problem {
                throw ToolFailure(description: "seed \(seed), crash at \(time): \(problem); \(steps.prefix { $0.logStart < time }.suffix(10).map(\.text))")
            }
        }
    }

    private static func judge(_ disks: [[UInt8]], after time: Int, _ steps: [CrashTests.Step], _ size: Int, isRaw: Bool) async throws -> String? {
        let expected = CrashTests.Expectation(steps, time, [UInt8](repeating: 0, count: size))
        let (image, data) = (Recorder(disk: disks[0]), Recorder(disk: disks[1]))
        defer {
            image.forget()
            data.forget()
        }
        for recorder in [image, data] { recorder.state.withLock { ($0.isSlow, $0.isRecording) = (false, false) } }
        return try await onContext { context in
            try await withImage(options(image, data, readOnly: true), context) { disk in
                guard let report = try await disk.node.checking?.check(repair: []) else { return "no check" }
                if report.corruptions > 0 || report.checkErrors > 0 { return "\(report.corruptions) corruptions: \(report.messages.prefix(4))" }
                var views = [try await disk.readBytes(at: 0, size)]
                if isRaw { views.append(Array((disks[1] + [UInt8](repeating: 0, count: size)).prefix(size))) }
                return views.lazy.compactMap { expected.difference(in: $0) }.first
            }
        }
    }
}
