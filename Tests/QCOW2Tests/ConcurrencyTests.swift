import BlockGraph
import Foundation
import IOCore
import QCOW2Testing
import StorageSchema
import StrataBase
import StrataTesting
import Testing

@Suite("qcow2 under concurrent requests")
struct ConcurrencyTests {
    /// Clients on threads of their own, each with regions that no other writes, interleaved within clusters so that they share them.
    @Test("clients on three threads never see or lose each other's data", arguments: [512, 4096, 65536], [0, 1])
    func interleaved(clusterSize: Int, depth: Int) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2"), base = scratch.file("base.qcow2")
        let size = 192 * clusterSize
        var arguments = ["create", "-q", "-f", "qcow2", "-o", "cluster_size=\(clusterSize)"]
        if depth == 1 {
            try run("qemu-img", ["create", "-q", "-f", "qcow2", base, String(size)])
            try run("qemu-io", ["-f", "qcow2", "-c", "write -P 33 0 \(size)", base])
            arguments += ["-b", base, "-F", "qcow2"]
        }
        try run("qemu-img", arguments + [path, String(size)])
        let clients = 8
        let fill: UInt8 = depth == 1 ? 33 : 0
        let models = try await onContext { context in
            try await withImage(imageOptions(path, l2CacheSize: 8192), context) { disk in
                let threads = try [IOContext.startThread(name: "a"), IOContext.startThread(name: "b"), IOContext.startThread(name: "c")]
                defer { for thread in threads { thread.stop() } }
                return try await withThrowingTaskGroup(of: (Int, [UInt8]).self) { group in
                    for client in 0..<clients {
                        group.addTask(executorPreference: threads[client % threads.count]) {
                            (client, try await Self.client(client, of: clients, disk, size, clusterSize, fill))
                        }
                    }
                    group.addTask {
                        for _ in 0..<10 { try await disk.flush() }
                        return (-1, [])
                    }
                    var models: [Int: [UInt8]] = [:]
                    for try await (client, model) in group where client >= 0 { models[client] = model }
                    return models
                }
            }
        }
        try run("qemu-img", ["check", path])
        let raw = scratch.file("out.raw")
        try run("qemu-img", ["convert", "-O", "raw", path, raw])
        let found = [UInt8](try Data(contentsOf: URL(fileURLWithPath: raw)))
        let piece = clusterSize / 4
        for position in found.indices {
            let owner = (position / piece) % clients
            guard found[position] == models[owner]?[position] else {
                Issue.record("byte \(position) of client \(owner) is \(found[position])")
                return
            }
        }
    }

    @Test("a discard of much of a large disk lets others on the thread have their turns, although it waits for nothing")
    func longDiscard() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", path, "2G"])
        let turns = try await onContext { context in
            try await withImage(imageOptions(path), context) { disk in
                let range = GuestRange(GuestOffset(0), byteCount: 1 << 30)
                // What has to be written before the first change is written.
                try await disk.discard(range)
                let isOver = AsyncCondition(false)
                let others = Task(executorPreference: context) {
                    var turns = 0
                    while !isOver.withLock({ $0 }) {
                        turns += 1
                        await Task.yield()
                    }
                    return turns
                }
                try await disk.discard(range)
                isOver.update { $0 = true }
                return await others.value
            }
        }
        #expect(turns > 100)
    }

    @Test("more parts of the mapping are read at once than the cache has room for", .timeLimit(.minutes(2)))
    func manyLoads() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", path, "2M"])
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 5 0 2M", path])
        let recorder = Recorder(disk: [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))))
        defer { recorder.forget() }
        try await onContext { context in
            try await withImage(recorder.imageOptions(l2CacheSize: 8192), context) { disk in
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for number in 0..<64 {
                        group.addTask(executorPreference: context) {
                            let found = try await disk.readBytes(at: number << 15, 512)
                            #expect(found == [UInt8](repeating: 5, count: 512))
                        }
                    }
                    try await group.waitForAll()
                }
            }
        }
    }

    /// Writes, zeroes and reads only its own pieces: a quarter of a cluster in every second cluster.
    private static func client(_ number: Int, of clients: Int, _ disk: BlockBackend, _ size: Int, _ clusterSize: Int, _ fill: UInt8) async throws -> [UInt8] {
        var random = SeededGenerator(seed: UInt64(number))
        var model = [UInt8](repeating: fill, count: size)
        let piece = clusterSize / 4
        let pieces = stride(from: number, to: size / piece, by: clients).map { $0 * piece }
        for _ in 0..<220 {
            let start = pieces.randomElement(using: &random) ?? 0
            switch Int.random(in: 0..<8, using: &random) {
            case 0..<5:
                let data = [UInt8](repeating: UInt8.random(in: 1...255, using: &random), count: piece)
                model.replaceSubrange(start..<(start + piece), with: data)
                try await disk.writeBytes(data, at: start)
            case 5:
                model.replaceSubrange(start..<(start + piece), with: [UInt8](repeating: 0, count: piece))
                try await disk.writeZeroes(GuestRange(GuestOffset(start), byteCount: piece), flags: .mayUnmap)
            default:
                let read = try await disk.readBytes(at: start, piece)
                if let difference = firstDifference(read, Array(model[start..<(start + piece)])) {
                    throw ToolFailure(description: "client \(number) at \(start): \(difference)")
                }
            }
        }
        return model
    }

    /// Whole clusters this time: frees and reuse at full speed, readers in between.
    @Test("a cluster that is freed and reused never shows another's data")
    func reuse() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        let clusterSize = 4096
        let clients = 6, clustersEach = 24
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", path, String(clients * clustersEach * clusterSize)])
        try await onContext { context in
            try await withImage(imageOptions(path), context) { disk in
                let threads = try [IOContext.startThread(name: "a"), IOContext.startThread(name: "b")]
                defer { for thread in threads { thread.stop() } }
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for client in 0..<clients {
                        group.addTask(executorPreference: threads[client % 2]) {
                            var random = SeededGenerator(seed: UInt64(client + 50))
                            var model = [UInt8](repeating: 0, count: clustersEach)
                            for _ in 0..<500 {
                                let index = Int.random(in: 0..<clustersEach, using: &random)
                                let start = (client * clustersEach + index) * clusterSize
                                switch Int.random(in: 0..<6, using: &random) {
                                case 0, 1:
                                    // The client's number is in the high bits: data of another is recognized.
                                    model[index] = UInt8(client + 1) << 5 | UInt8.random(in: 0..<32, using: &random)
                                    try await disk.writeBytes([UInt8](repeating: model[index], count: clusterSize), at: start)
                                case 2:
                                    model[index] = 0
                                    try await disk.discard(GuestRange(GuestOffset(start), byteCount: clusterSize))
                                case 3 where index == 0: try await disk.flush()
                                default:
                                    let read = try await disk.readBytes(at: start, clusterSize)
                                    guard read.allSatisfy({ $0 == model[index] }) else {
                                        throw ToolFailure(description: "client \(client) found \(read[0]) instead of \(model[index])")
                                    }
                                }
                            }
                        }
                    }
                    try await group.waitForAll()
                }
            }
        }
        try run("qemu-img", ["check", path])
    }
}
