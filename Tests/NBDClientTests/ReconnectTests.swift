import BlockGraph
import Foundation
import IOCore
import NBDClient
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

@Suite("NBD client: servers that go away", .timeLimit(.minutes(4)))
struct ReconnectTests {
    private static func serve(_ folder: TemporaryFolder) throws -> ServerProgram {
        try? FileManager.default.removeItem(atPath: folder.path("s"))
        return try ServerProgram("qemu-nbd", ["-t", "-e", "8", "-f", "raw", "-k", folder.path("s"), folder.path("disk")], socket: folder.path("s"))
    }

    private static func makeDisk(_ byteCount: Int) throws -> TemporaryFolder {
        let folder = try TemporaryFolder()
        try folder.write([], to: "disk")
        #expect(truncate(folder.path("disk"), off_t(byteCount)) == 0)
        return folder
    }

    @Test("within the delay no request fails and nothing acknowledged is lost, however often the server is killed", arguments: [1, 3])
    func killed(connections: Int) async throws {
        let folder = try Self.makeDisk(4 << 20)
        let isOver = Atomic<Bool>(false), isDone = Atomic<Bool>(false)
        let rounds = Atomic<Int>(0)
        let failure = Mutex<String?>(nil)
        let killer = Thread {
            defer { isOver.store(true, ordering: .releasing) }
            do {
                var program = try Self.serve(folder)
                for _ in 0..<(extendedRun ? 60 : 6) {
                    // Each server dies in the middle of work: after some of it is done, at no point in particular.
                    let before = rounds.load(ordering: .acquiring)
                    guard waitUntil(atMost: .seconds(60), { rounds.load(ordering: .acquiring) > before + 3 }) else { throw HarnessError("the client does not get on") }
                    try program.kill()
                    program = try Self.serve(folder)
                }
                isOver.store(true, ordering: .releasing)
                _ = waitUntil(atMost: .seconds(120)) { isDone.load(ordering: .acquiring) }
                withExtendedLifetime(program) {}
            } catch { failure.withLock { $0 = "\(error)" } }
        }
        killer.start()
        let bench = try ClientBench()
        let backend = try await bench.open(ClientBench.options(folder.path("s"), reconnectDelay: 60, openTimeout: 60, connections: UInt32(connections)))
        let expected = try await bench.on { _ in
            var model = DiskModel(byteCount: 4 << 20, seed: runSeed)
            while !isOver.load(ordering: .acquiring) {
                try await model.exercise(backend, rounds: 1)
                rounds.add(1, ordering: .releasing)
            }
            try await model.exercise(backend, rounds: 5)
            try await backend.flush()
            return model.bytes
        }
        try await bench.close(backend)
        isDone.store(true, ordering: .releasing)
        await bench.stop()
        #expect(failure.withLock { $0 } == nil)
        #expect(firstDifference(try folder.read("disk"), expected) == nil, "seed \(runSeed)")
    }

    @Test("a reopen gives the client patience with its server, and takes nothing else from it")
    func reopened() async throws {
        let folder = try Self.makeDisk(1 << 20)
        let first = try Self.serve(folder)
        let bench = try ClientBench()
        let path = folder.path("s")
        let backend = try await bench.open(ClientBench.options(path))
        let step = DiskModel.Step.write(0, 4096, 7, fua: false)
        try await bench.on { graph in
            try await step.run(backend)
            try await graph.reopen([ClientBench.options(path, reconnectDelay: 60, openTimeout: 5)])
            for options in [ClientBench.options(path + "x"), ClientBench.options(path, export: "other"), ClientBench.options(path, connections: 2)] {
                await #expect(throws: BlockError.self) { try await graph.reopen([options]) }
            }
            try await step.run(backend)
        }
        try first.kill()
        // The request finds nobody there, and is answered by the server that comes next.
        async let written: Void = bench.on { _ in try await step.run(backend) }
        let second = try Self.serve(folder)
        try await written
        try await bench.close(backend)
        await bench.stop()
        withExtendedLifetime(second) {}
        #expect(try folder.read("disk").prefix(4096).allSatisfy { $0 == 7 })
    }

    @Test("a server that offers its export read-only cannot be reopened for writing, in QEMU's words")
    func readOnlyServer() async throws {
        let folder = try Self.makeDisk(1 << 20)
        let server = try ServerProgram("qemu-nbd", ["-t", "-r", "-f", "raw", "-k", folder.path("s"), folder.path("disk")], socket: folder.path("s"))
        let bench = try ClientBench()
        let path = folder.path("s")
        let backend = try await bench.open(ClientBench.options(path, readOnly: true), writable: false)
        try await bench.on { graph in
            let refusal = await #expect(throws: BlockError.self) { try await graph.reopen([ClientBench.options(path, readOnly: false)]) }
            #expect(refusal?.message == "Can't reopen read-only NBD mount as read/write")
            // What may become writable some day is another matter, until somebody writes.
            try await graph.reopen([ClientBench.options(path, readOnly: false, autoReadOnly: true)])
            await #expect(throws: BlockError.self) { try await graph.setGrant(PermissionGrant(used: .write, shared: .all), of: backend) }
            try await DiskModel.Step.read(0, [UInt8](repeating: 0, count: 4096)).run(backend)
        }
        try await bench.close(backend)
        await bench.stop()
        withExtendedLifetime(server) {}
    }

    @Test("without a delay requests fail, and later ones succeed when the server is back")
    func noDelay() async throws {
        let folder = try Self.makeDisk(1 << 20)
        let first = try Self.serve(folder)
        let bench = try ClientBench()
        let backend = try await bench.open(ClientBench.options(folder.path("s")))
        let step = DiskModel.Step.write(0, 4096, 7, fua: false)
        try await bench.on { _ in try await step.run(backend) }
        try first.kill()
        await #expect(throws: BlockError.self) { try await bench.on { _ in try await step.run(backend) } }
        let second = try Self.serve(folder)
        try await bench.on { _ in
            while true {
                do throws(BlockError) {
                    try await backend.flush()
                    return
                } catch { await bench.context.sleep(for: .milliseconds(10)) }
            }
        }
        try await bench.on { _ in try await DiskModel.Step.read(0, [UInt8](repeating: 7, count: 4096)).run(backend) }
        try await bench.close(backend)
        await bench.stop()
        withExtendedLifetime(second) {}
    }

    @Test("after the delay parked requests fail and the node can be closed while the server is gone")
    func delayIsOver() async throws {
        let folder = try Self.makeDisk(1 << 20)
        let program = try Self.serve(folder)
        let bench = try ClientBench()
        let backend = try await bench.open(ClientBench.options(folder.path("s"), reconnectDelay: 1))
        try program.kill()
        await #expect(throws: BlockError.self) { try await bench.on { _ in try await DiskModel.Step.write(0, 4096, 7, fua: false).run(backend) } }
        try await bench.close(backend)
        await bench.stop()
    }

    @Test("a server that comes back smaller is refused, and a larger one is taken")
    func otherSize() async throws {
        let folder = try Self.makeDisk(2 << 20)
        let first = try Self.serve(folder)
        let bench = try ClientBench()
        let backend = try await bench.open(ClientBench.options(folder.path("s")))
        try first.kill()
        #expect(truncate(folder.path("disk"), 1 << 20) == 0)
        let second = try Self.serve(folder)
        let refusal = try await bench.on { _ in
            while true {
                do throws(BlockError) {
                    try await backend.flush()
                    return "accepted"
                } catch {
                    if error.message.contains("had") { return error.description }
                    await bench.context.sleep(for: .milliseconds(10))
                }
            }
        }
        #expect(refusal.contains("1048576 bytes and had 2097152"), "\(refusal)")
        try second.kill()
        #expect(truncate(folder.path("disk"), 3 << 20) == 0)
        let third = try Self.serve(folder)
        try await bench.on { _ in
            while true {
                do throws(BlockError) {
                    try await backend.flush()
                    break
                } catch { await bench.context.sleep(for: .milliseconds(10)) }
            }
            #expect(backend.length == 3 << 20)
            try await DiskModel.Step.write(2 << 20, 4096, 9, fua: true).run(backend)
        }
        try await bench.close(backend)
        await bench.stop()
        withExtendedLifetime(third) {}
    }
}
