import BasicDrivers
import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import StrataTesting
import Testing
import TestDrivers

@Suite("blkdebug: breakpoints")
struct BreakpointTests {
    @Test("a request that meets a breakpoint waits until it is told to go on, and others pass it")
    func order() async throws {
        let folder = try TemporaryFolder()
        try folder.write([UInt8](repeating: 0, count: 65536), to: "disk")
        let path = folder.path("disk")
        let context = try IOContext.startThread(name: "breakpoints")
        let result: Result<Void, any Error> = await withCheckedContinuation { continuation in
            context.spawn {
                do {
                    try await Self.exercise(path, context)
                    continuation.resume(returning: .success(()))
                } catch { continuation.resume(returning: .failure(error)) }
            }
        }
        context.stop()
        context.join()
        try result.get()
        #expect(try folder.read("disk").prefix(4096).allSatisfy { $0 == 1 })
    }

    private static func exercise(_ path: String, _ context: IOContext) async throws {
        let graph = BlockGraph(context: context, drivers: DriverRegistry([FileDriver.self, RawDriver.self, BlkdebugDriver.self]))
        let file = BlockdevOptions(.file(BlockdevOptionsFile(filename: path)))
        let debug = BlockdevOptions(.blkdebug(BlockdevOptionsBlkdebug(image: .definition(file))))
        try await graph.add(BlockdevOptions(.raw(BlockdevOptionsRaw(file: .definition(debug))), nodeName: "top"))
        let backend = try await graph.makeBackend(named: "test", on: "top", PermissionGrant(used: [.consistentRead, .write], shared: .all))
        @Sendable func write(_ byte: UInt8) async throws(BlockError) {
            let buffer = IOBuffer(byteCount: 4096)
            defer { withExtendedLifetime(buffer) {} }
            buffer.vector.fill(with: byte)
            try await backend.write(buffer.vector, at: GuestOffset(0))
        }
        let breaker = try #require(backend.node.requestSuspending)
        #expect(throws: BlockError.self) { try breaker.resumeRequest(tag: "A") }
        breaker.setBreakpoint(at: .writeAio, tag: "A")
        #expect(!breaker.isSuspended(tag: "A"))
        async let first: Void = write(1)
        await breaker.waitUntilSuspended(tag: "A")
        #expect(breaker.isSuspended(tag: "A") && !breaker.isSuspended(tag: "B"))
        // The breakpoint has been met: the next one passes.
        try await write(2)
        // A drained section waits for the request that is held up.
        async let drained: Void = graph.withDrained(["top"]) { () async throws(BlockError) in #expect(!breaker.isSuspended(tag: "A")) }
        await Task.yield()
        try breaker.resumeRequest(tag: "A")
        try await first
        try await drained
        // Two under one name go in the order in which they came; taking a name away lets everybody go.
        for _ in 0..<2 { breaker.setBreakpoint(at: .flushToDisk, tag: "F") }
        breaker.setBreakpoint(at: .readAio, tag: "F")
        async let flushes: Void = backend.flush()
        async let more: Void = backend.flush()
        await breaker.waitUntilSuspended(tag: "F")
        breaker.removeBreakpoint(tag: "F")
        breaker.removeBreakpoint(tag: "F")
        try await flushes
        while breaker.isSuspended(tag: "F") { breaker.removeBreakpoint(tag: "F") }
        try await more
        let buffer = IOBuffer(byteCount: 512)
        try await backend.read(buffer.vector, at: GuestOffset(0))
        withExtendedLifetime(buffer) {}
        await graph.release(backend)
        try await graph.closeAll()
    }

    @Test("`strata io` sets, waits for, resumes and removes breakpoints as qemu-io does")
    func tool() throws {
        let folder = try TemporaryFolder()
        let scripts = [
            ["break write_aio A", "aio_write 0 4k", "wait_break A", "write 8k 4k", "resume A", "aio_flush"], ["break nowhere A"], ["resume A"],
            ["remove_break A"], ["break write_aio A", "remove_break A", "write 0 4k"],
        ]
        for image in ["blkdebug::disk", "disk"] {
            for script in scripts where image != "disk" || script.count == 1 {
                try folder.write([UInt8](repeating: 0, count: 65536), to: "disk")
                let commands = script.flatMap { ["-c", $0] }
                func lines(_ program: [String]) throws -> [String] {
                    let finished = try run(program[0], program.dropFirst() + ["-f", "raw"] + commands + [image], in: folder.url, atMost: .seconds(30))
                    return (finished.text + finished.errorText).split(separator: "\n").map(String.init).filter { !$0.contains("ops/sec") && !$0.contains("ops;") }
                }
                #expect(try lines([Strata.binary, "io"]) == lines(["qemu-io"]), "\(image): \(script)")
            }
        }
    }

    @Test("a write that brings the rest of its cluster along is a write to those who wait for one, and a copy")
    func copyOnWrite() throws {
        let folder = try TemporaryFolder()
        try QEMU.img("create", "-q", "-f", "raw", "base", "1M", in: folder)
        try QEMU.io("base", format: "raw", ["write -P 9 0 1M"], in: folder)
        for event in ["write_aio", "cow_write", "cow_read"] {
            func lines(_ program: [String]) throws -> [String] {
                try QEMU.img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "disk", in: folder)
                let script = ["break \(event) A", "aio_write 0 4k", "wait_break A", "resume A", "aio_flush"].flatMap { ["-c", $0] }
                let options = ["--image-opts", "driver=qcow2,file.driver=blkdebug,file.image.filename=disk"]
                let finished = try run(program[0], program.dropFirst() + script + options, in: folder.url, atMost: .seconds(30))
                return (finished.text + finished.errorText).split(separator: "\n").map(String.init).filter { !$0.contains("ops/sec") && !$0.contains("ops;") }
            }
            #expect(try lines([Strata.binary, "io"]) == lines(["qemu-io"]), "\(event)")
        }
    }
}
