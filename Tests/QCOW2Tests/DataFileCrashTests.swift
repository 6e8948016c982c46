import BlockGraph
import Foundation
import IOCore
import QCOW2
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

/// Image and data file on two disks, each with a volatile cache of its own: what one has kept says nothing about the other.
@Suite("qcow2 with a data file after a crash")
struct DataFileCrashTests {
    private static func options(_ image: Recorder, _ data: Recorder, readOnly: Bool = false) -> BlockdevOptions {
        var options = image.imageOptions(readOnly: readOnly, l2CacheSize: 8192)
        guard case .qcow2(var own) = options.branch else { return options }
        var dataOptions = BlockdevOptions(.nullCo(BlockdevOptionsNull(size: data.number)))
        dataOptions.discard = .unmap
        own.dataFile = .definition(dataOptions)
        let made = BlockdevOptions(.qcow2(own), nodeName: options.nodeName, discard: options.discard, readOnly: readOnly)
        options = made
        return options
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
                var model = DiskModel(size: size, clusterSize: hasSubclusters ? clusterSize / 32 : clusterSize, seed: seed)
                var steps: [CrashTests.Step] = []
                for _ in 0..<40 {
                    let range = model.range(alignment: 512)
                    var step = CrashTests.Step(range: range, data: [], isFlush: false, logStart: Recorder.now, logEnd: 0, text: "")
                    switch Int.random(in: 0..<12, using: &model.random) {
                    case 0..<6:
                        step.data = model.data(range.count)
                        step.text = "write \(range)"
                        try await disk.writeBytes(step.data, at: range.lowerBound)
                    case 6..<8:
                        step.text = "zero \(range)"
                        let unmap = Bool.random(using: &model.random)
                        try await disk.writeZeroes(GuestRange(GuestOffset(range.lowerBound), byteCount: range.count), flags: unmap ? .mayUnmap : [])
                    case 8..<10:
                        step.range = model.range(alignment: model.clusterSize)
                        step.text = "discard \(step.range)"
                        try await disk.discard(GuestRange(GuestOffset(step.range.lowerBound), byteCount: step.range.count))
                    default:
                        (step.range, step.isFlush, step.text) = (0..<0, true, "flush")
                        try await disk.flush()
                    }
                    step.logEnd = Recorder.now
                    steps.append(step)
                }
                return steps
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
        let begun = steps.prefix { $0.logStart < time }
        let lastFlush = begun.lastIndex { $0.isFlush && $0.logEnd <= time }
        var durable = [UInt8](repeating: 0, count: size)
        for step in begun.prefix(upTo: lastFlush ?? 0) where !step.isFlush {
            for position in step.range { durable[position] = step.value(at: position) }
        }
        let expected = durable
        let later = begun[(lastFlush ?? 0)...].filter { !$0.isFlush }
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
                for found in views {
                    for position in found.indices where found[position] != expected[position] {
                        if later.contains(where: { $0.range.contains(position) && $0.value(at: position) == found[position] }) { continue }
                        return "byte \(position) is \(found[position]), flushed was \(expected[position])"
                    }
                }
                return nil
            }
        }
    }
}
