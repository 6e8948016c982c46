import BasicDrivers
import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import Synchronization
import Testing

@Suite("graph transactions")
struct GraphTransactionTests {
    @Test("a filter goes in and out under a user who notices nothing, and a node follows its data to another file")
    func retarget() async throws {
        let bench = try GraphBench(drivers: inMemory)
        defer { bench.close() }
        try await bench.run { graph in
            try await graph.add(memoryOptions("disk"))
            try await graph.add(memoryOptions("other"))
            let user = try await graph.makeBackend(named: "user", on: "disk", writing)
            let data = IOBuffer(byteCount: 512)
            defer { withExtendedLifetime(data) {} }
            data.vector.fill(with: 7)
            try await user.write(data.vector, at: GuestOffset(0))
            try await graph.change { change async throws(BlockError) in
                let filter = try await change.open(rawOptions(over: "disk", name: "filter"), isMonitorOwned: true)
                try change.retarget(user.root.id, to: filter.name)
            }
            #expect(user.node.name == "filter")
            #expect(await graph.permissions(ofNodeNamed: "disk")?.used == writing.used)
            #expect(await first(user) == 7)
            // The filter itself is pointed elsewhere.
            try await graph.change { change async throws(BlockError) in
                guard let edge = change.state.child(named: "file", of: "filter") else { throw BlockError(.notFound, "no file") }
                try change.retarget(edge.child.id, to: "other")
            }
            #expect(await first(user) == 0)
            #expect(await graph.permissions(ofNodeNamed: "disk")?.used == [])
            try await graph.change { change async throws(BlockError) in
                try change.retarget(user.root.id, to: "disk")
                change.release("filter")
            }
            #expect(await first(user) == 7)
            #expect(await graph.allNodes.map(\.name) == ["disk", "other"])
            await graph.release(user)
            #expect(user.root.permissions == [])
            try await graph.closeAll()
        }
    }

    @Test("a backing node comes and goes, and what shows through it comes and goes with it")
    func attachAndDetach() async throws {
        let bench = try GraphBench(drivers: inMemory)
        defer { bench.close() }
        try await bench.run { graph in
            for name in ["base", "file"] { try await graph.add(memoryOptions(name)) }
            let writer = try await graph.makeBackend(named: "writer", on: "base", writing)
            let data = IOBuffer(byteCount: 512)
            defer { withExtendedLifetime(data) {} }
            data.vector.fill(with: 9)
            try await writer.write(data.vector, at: GuestOffset(0))
            await graph.release(writer)
            try await graph.add(overlayOptions("top", file: "file"))
            guard let top = await graph.node(named: "top"), let driver = top.driver as? OverlayDriver else { return }
            driver.forgetEverything()
            let reader = try await graph.makeBackend(named: "reader", on: "top", reading)
            #expect(await first(reader) == 0)
            let edge = try await graph.change { change async throws(BlockError) in try change.attach("base", to: "top", as: "backing", role: .copyOnWrite) }
            #expect(await first(reader) == 9)
            #expect(top.backingChild?.node.name == "base")
            #expect(await message { try await graph.remove(nodeNamed: "base") } == "Node 'base' is busy: node is used as backing hd of 'top'")
            let loop = await message {
                try await graph.change { change async throws(BlockError) in _ = try change.attach("top", to: "top", as: "backing", role: .copyOnWrite) }
            }
            #expect(loop == "Making 'top' a backing child of 'top' would create a cycle")
            let refusal = await message {
                try await graph.change { change async throws(BlockError) in _ = try change.attach("base", to: "file", as: "backing", role: .copyOnWrite) }
            }
            #expect(refusal == "The node file does not support adding a child")
            try await graph.change { change async throws(BlockError) in try change.detach(edge) }
            #expect(await first(reader) == 0)
            try await graph.remove(nodeNamed: "base")
            await graph.release(reader)
            try await graph.closeAll()
        }
    }

    /// Writes down what happens to it, and fails where it is told to.
    private final class Participant: ChangeParticipant {
        let name: String, log: Log, faults: Faults
        init(_ name: String, _ log: Log, _ faults: Faults) { (self.name, self.log, self.faults) = (name, log, faults) }
        func prepare() async throws(BlockError) {
            try faults.pass(.participant)
            log.add("prepare \(name)")
        }
        func commit() async { log.add("commit \(name)") }
        func abort() async { log.add("abort \(name)") }
    }

    private final class Log: Sendable {
        private let lines = Mutex<[String]>([])
        func add(_ line: String) { lines.withLock { $0.append(line) } }
        func take() -> [String] { lines.withLock { lines in let all = lines; lines = []; return all } }
    }

    @Test("whoever takes part prepares, commits and aborts together with the graph, whichever step fails")
    func participants() async throws {
        let bench = try GraphBench(drivers: inMemory)
        defer { bench.close() }
        let faults = Faults()
        defer { faults.forget() }
        let log = Log()
        try await bench.run { graph in
            try await graph.add(memoryOptions("disk", faults: faults))
            try await graph.add(memoryOptions("other", faults: faults))
            let user = try await graph.makeBackend(named: "user", on: "disk", writing)
            func attempt() async -> String? {
                await message {
                    try await graph.change { change async throws(BlockError) in
                        for name in ["a", "b"] { change.add(Participant(name, log, faults)) }
                        let filter = try await change.open(rawOptions(over: "other", name: "filter"), isMonitorOwned: true)
                        try change.retarget(user.root.id, to: filter.name)
                    }
                }
            }
            faults.arm(.participant)
            #expect(await attempt() == "this step was told to fail")
            #expect(log.take() == [])
            faults.arm(.participant, after: 1)
            #expect(await attempt() == "this step was told to fail")
            #expect(log.take() == ["prepare a", "abort a"])
            // The disk that is to be written to says no; the other one only gives something up.
            do {
                faults.arm(.prepare)
                #expect(await attempt() == "this step was told to fail")
                #expect(log.take() == ["prepare a", "prepare b", "abort b", "abort a"])
                #expect(user.node.name == "disk")
                #expect(await graph.node(named: "filter") == nil)
                #expect(await graph.permissions(ofNodeNamed: "disk") == writing)
                #expect(await graph.permissions(ofNodeNamed: "other") == PermissionGrant.none)
                for node in await graph.allNodes { #expect((node.driver as? MemoryDriver)?.isPrepared == false) }
            }
            faults.disarm()
            #expect(await attempt() == nil)
            #expect(log.take() == ["prepare a", "prepare b", "commit a", "commit b"])
            #expect(user.node.name == "filter")
            await graph.release(user)
            try await graph.closeAll()
        }
    }

    @Test("drained sections nest, and hold for backends that come above the drained nodes meanwhile")
    func drains() async throws {
        let bench = try GraphBench(drivers: inMemory)
        defer { bench.close() }
        try await bench.run { graph in
            for name in ["disk", "other"] { try await graph.add(memoryOptions(name)) }
            try await graph.add(rawOptions(over: "disk", name: "top"))
            let user = try await graph.makeBackend(named: "user", on: "top", writing)
            let stranger = try await graph.makeBackend(named: "stranger", on: "other", reading)
            let data = IOBuffer(byteCount: 512)
            defer { withExtendedLifetime(data) {} }
            let outer = await graph.beginDrain(of: ["disk"])
            let inner = await graph.beginDrain(of: nil)
            #expect(!user.isOpen && !stranger.isOpen)
            await graph.end(outer)
            #expect(!user.isOpen)
            await graph.end(inner)
            #expect(user.isOpen && stranger.isOpen)

            let drain = await graph.beginDrain(of: ["disk"])
            #expect(stranger.isOpen)
            let late = try await graph.makeBackend(named: "late", on: "disk", reading)
            try await graph.change { change async throws(BlockError) in try change.retarget(stranger.root.id, to: "top") }
            #expect(!late.isOpen && !stranger.isOpen && !user.isOpen)
            try await graph.change { change async throws(BlockError) in try change.retarget(stranger.root.id, to: "other") }
            #expect(stranger.isOpen)
            try await graph.withSubtreeDrained("top") { () async throws(BlockError) in #expect(!user.isOpen) }
            try await graph.withEverythingDrained { () async throws(BlockError) in #expect(!stranger.isOpen) }
            await graph.end(drain)
            #expect(late.isOpen && stranger.isOpen && user.isOpen)
            for backend in [user, stranger, late] { await graph.release(backend) }
            try await graph.closeAll()
        }
    }

    private func first(_ backend: BlockBackend) async -> UInt8? {
        let data = IOBuffer(byteCount: 512)
        defer { withExtendedLifetime(data) {} }
        do { try await backend.read(data.vector, at: GuestOffset(0)) } catch { return nil }
        return data.copyToArray().first
    }
}
