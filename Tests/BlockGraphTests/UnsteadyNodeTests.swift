import BasicDrivers
import BlockGraph
import Foundation
import IOCore
import StorageSchema
import StrataBase
import Synchronization
import Testing

/// What happens between two looks at the same thing.
@Suite("nodes that change between two looks")
struct UnsteadyNodeTests {
    /// A disk that has lost its second half when its length is asked for the second time.
    private final class ShrinkingDriver: BlockDriver, StatusReporting {
        static let formatName = "null-co"
        static let kind = DriverKind.protocol
        private let looks = Atomic<Int>(.min)

        static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver { ShrinkingDriver() }

        func shrinkAfterNextLook() { looks.store(0, ordering: .relaxed) }
        var length: Int { looks.add(1, ordering: .relaxed).oldValue <= 0 ? 8192 : 4096 }
        func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) { target.zero() }
        func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {}
        func tryBlockStatus(of range: GuestRange, precise: Bool) -> BlockStatus? { BlockStatus(byteCount: range.byteCount, flags: [.data, .allocated]) }
        func blockStatus(of range: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus { BlockStatus(byteCount: range.byteCount, flags: .data) }
    }

    @Test("block status of a range that a disk loses meanwhile tells of what is left, and of zeroes")
    func shrinking() async throws {
        let bench = try GraphBench(drivers: [ShrinkingDriver.self])
        defer { bench.close() }
        try await bench.run { graph in
            let node = try await graph.add(memoryOptions("disk"))
            let driver = try #require(node.driver as? ShrinkingDriver)
            let backend = try await graph.makeBackend(named: "test", on: "disk", reading)
            driver.shrinkAfterNextLook()
            let left = try await backend.blockStatus(of: GuestRange(GuestOffset(2048), byteCount: 6144)).status
            #expect(left.byteCount == 2048 && left.flags.isSuperset(of: [.data, .endOfFile]))
            driver.shrinkAfterNextLook()
            let gone = try await backend.blockStatus(of: GuestRange(GuestOffset(6144), byteCount: 2048)).status
            #expect(gone.byteCount == 2048 && gone.flags.contains(.zero) && !gone.flags.contains(.data))
            await graph.release(backend)
            try await graph.closeAll()
        }
    }

    @Test("a change that forbids to resize a node is not overtaken by who has looked before it")
    func resizeAndBlocker() async throws {
        let bench = try GraphBench(drivers: inMemory)
        defer { bench.close() }
        try await bench.run { graph in
            try await graph.add(memoryOptions("disk"))
            let isInside = AsyncCondition(false), mayGoOn = AsyncCondition(false)
            let context = bench.context
            let blocking = Task(executorPreference: context) {
                try await graph.change { change async throws(BlockError) in
                    isInside.update { $0 = true }
                    _ = await mayGoOn.wait { $0 ? true : nil }
                    change.addBlocker(.job(reason: "a test uses it"), to: "disk")
                }
            }
            _ = await isInside.wait { $0 ? true : nil }
            let resizing = Task(executorPreference: context) { await message { try await graph.resize("disk", to: 8192) } }
            // One thread: when we are back, the other task has come as far as it can.
            for _ in 0..<10 { await Task.yield() }
            mayGoOn.update { $0 = true }
            try await blocking.value
            #expect(await resizing.value == "Node 'disk' is busy: a test uses it")
            #expect(await graph.node(named: "disk")?.length == 4096)
            try await graph.closeAll()
        }
    }

    @Test("a node that may not be added is no part of the advice: who was there first is")
    func advice() async throws {
        let bench = try GraphBench(drivers: inMemory)
        defer { bench.close() }
        try await bench.run { graph in
            try await graph.add(memoryOptions("file"))
            try await graph.add(overlayOptions("first", file: "file"))
            let refusal = await #expect(throws: BlockError.self) { try await graph.add(overlayOptions("second", file: "file")) }
            #expect(refusal?.hint == "Node 'first' was there first: use it in place of 'second', or delete it first.")
            try await graph.closeAll()
        }
    }

    @Test("a disk whose format is a guess stays guarded when it is opened anew with other options")
    func guess() async throws {
        let bench = try GraphBench()
        defer { bench.close() }
        let path = try bench.file("disk", size: 1 << 20)
        try await bench.run { graph in
            func raw(_ readOnly: Bool) -> BlockdevOptions {
                BlockdevOptions(.raw(BlockdevOptionsRaw(file: .definition(fileOptions(path, name: "file")))), nodeName: "disk", readOnly: readOnly)
            }
            try await graph.add(raw(true), isProbed: true)
            var writable = raw(false)
            writable.branch = .raw(BlockdevOptionsRaw(file: .reference("file")))
            try await graph.reopen([fileOptions(path, name: "file"), writable])
            let backend = try await graph.makeBackend(named: "test", on: "disk", writing)
            let header = IOBuffer(copying: [0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3])
            defer { withExtendedLifetime(header) {} }
            #expect(!backend.tryWrite(header.vector, at: GuestOffset(0)))
            #expect(await message { try await backend.write(header.vector, at: GuestOffset(0)) } != nil)
            try await backend.write(header.vector, at: GuestOffset(1 << 19))
            await graph.release(backend)
            try await graph.closeAll()
        }
    }

    @Test("a job's node that a snapshot made read-only is read-only again when the job gives it back")
    func restoring() async throws {
        let bench = try GraphBench()
        defer { bench.close() }
        let path = try bench.file("disk", size: 1 << 20)
        try await bench.run { graph in
            let raw = BlockdevOptions(.raw(BlockdevOptionsRaw(file: .definition(fileOptions(path, name: "file")))), nodeName: "disk")
            try await graph.add(raw)
            try await graph.change { change throws(BlockError) in try change.setReadOnly(true, of: "disk") }
            func state() async -> [Bool?] { [await graph.node(named: "disk")?.isReadOnly, await graph.node(named: "file")?.isReadOnly] }
            #expect(await state() == [true, true])
            // Two jobs at once: the last one gives it back.
            for _ in 0..<2 { #expect(try await graph.makeWritable("disk")) }
            #expect(await state() == [false, false])
            try await graph.endWritable("disk")
            #expect(await state() == [false, false])
            try await graph.endWritable("disk")
            #expect(await state() == [true, true])
            #expect(try await graph.makeWritable("disk"))
            try await graph.endWritable("disk", staysWritable: true)
            #expect(await state() == [false, false])
            #expect(try await !graph.makeWritable("disk"))
            try await graph.closeAll()
        }
    }

    @Test("work on a node that a snapshot makes read-only under its hands is done again while the node is held writable")
    func interrupted() async throws {
        let bench = try GraphBench()
        defer { bench.close() }
        let path = try bench.file("disk", size: 1 << 20)
        try await bench.run { graph in
            let raw = BlockdevOptions(.raw(BlockdevOptionsRaw(file: .definition(fileOptions(path, name: "file")))), nodeName: "disk")
            let node = try await graph.add(raw)
            // What the node below says, which was asked although the node itself was still writable, and what the node says.
            for code in [BlockError.Code.permissionConflict, .readOnly] {
                var attempts = 0
                try await graph.withWritable(node) { () async throws(BlockError) in
                    attempts += 1
                    if attempts > 1 { return }
                    try await graph.change { change throws(BlockError) in try change.setReadOnly(true, of: "disk") }
                    throw BlockError(code, "no permission")
                }
                #expect(attempts == 2)
                #expect(node.isReadOnly, "the snapshot has the last word")
                try await graph.change { change throws(BlockError) in try change.setReadOnly(false, of: "disk") }
            }
            // Another error is one, and so is this one while the node stays writable.
            for code in [BlockError.Code.io, .permissionConflict] {
                await #expect(throws: BlockError.self) { try await graph.withWritable(node) { () async throws(BlockError) in throw BlockError(code, "no") } }
            }
            try await graph.closeAll()
        }
    }

    @Test("a node that is removed has closed its file, whoever still holds what it was made of")
    func closedAtOnce() async throws {
        let bench = try GraphBench()
        defer { bench.close() }
        let path = try bench.file("disk", size: 1 << 20)
        @Sendable func isOpen() throws -> Bool {
            try FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").contains { (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\($0)")) == path }
        }
        try await bench.run { graph in
            let driver = try await graph.add(fileOptions(path, name: "file")).driver
            #expect(try isOpen())
            try await graph.remove(nodeNamed: "file")
            #expect(try !isOpen())
            let buffer = IOBuffer(zeroed: 512)
            let error = await #expect(throws: BlockError.self) { try await driver.read(buffer.vector, at: GuestOffset(0), flags: []) }
            #expect(error?.message.contains("Bad file descriptor") == true, "\(String(describing: error))")
            withExtendedLifetime(buffer) {}
        }
    }
}
