import BlockGraph
import Foundation
import IOCore
import StorageSchema
import StrataBase
import Synchronization
import Testing

/// Random requests from three I/O threads, random edits of the graph, failures now and then, and a flat array of bytes that must always agree.
///
/// A failure prints its seed; `STRATA_GRAPH_SEED=n` runs that one alone, with every step printed. `STRATA_EXTENDED=1` (the switch `--extended` of
/// Scripts/test) runs ten times as many.
@Suite("graph property test")
struct GraphPropertyTests {
    private static var environment: [String: String] { ProcessInfo.processInfo.environment }

    private static var seeds: Range<UInt64> {
        if let text = environment["STRATA_GRAPH_SEED"], let seed = UInt64(text) { return seed..<seed + 1 }
        return 0..<(environment["STRATA_EXTENDED"] == nil ? 10_000 : 100_000)
    }

    @Test("whatever is done to the graph, every request sees what a flat disk would show")
    func randomEdits() async throws {
        let bench = try GraphBench(drivers: inMemory)
        defer { bench.close() }
        let contexts = try (0..<3).map { try IOContext.startThread(name: "io\($0)") }
        let isReplay = Self.environment["STRATA_GRAPH_SEED"] != nil
        var failed: [String] = []
        for seed in Self.seeds {
            let run = PropertyRun(seed: seed, bench: bench, contexts: contexts, isVerbose: isReplay)
            if let failure = await run.failure() {
                failed.append("seed \(seed): \(failure)")
                if failed.count == 3 { break }
            }
        }
        for context in contexts {
            context.stop()
            context.join()
        }
        #expect(failed == [], "run one with STRATA_GRAPH_SEED")
    }
}

/// One seed: a graph, three workers, an editor.
private final class PropertyRun: Sendable {
    private static let size = 1536
    private static let part = size / 3
    private let seed: UInt64
    private let bench: GraphBench
    private let contexts: [IOContext]
    private let isVerbose: Bool
    private let faults = Faults()
    /// Workers that have finished. The editor goes on until all have.
    private let finished = Atomic<Int>(0)

    init(seed: UInt64, bench: GraphBench, contexts: [IOContext], isVerbose: Bool) {
        (self.seed, self.bench, self.contexts, self.isVerbose) = (seed, bench, contexts, isVerbose)
    }

    private func say(_ text: String) { if isVerbose { print("seed \(seed): \(text)") } }

    /// What went wrong; nil if nothing did.
    func failure() async -> String? {
        defer { faults.forget() }
        do {
            let graph = BlockGraph(context: bench.context, drivers: bench.graph.drivers)
            let editor = Editor(graph, faults, SplitMix(state: seed &* 0x2545_F491_4F6C_DD1D), say: { [self] in say($0) })
            let backend = try await bench.run { _ in
                try await editor.begin(size: Self.size)
                return try await graph.makeBackend(named: "load", on: "disk", PermissionGrant(used: [.consistentRead, .write], shared: .all))
            }
            async let first = work(0, backend)
            async let second = work(1, backend)
            async let third = work(2, backend)
            try await bench.run { [self] _ in
                editor.root = backend
                for step in 0..<24 {
                    // At least six edits, and more as long as there is somebody to disturb.
                    if step >= 6, finished.load(ordering: .sequentiallyConsistent) == 3 { break }
                    try await editor.edit()
                }
            }
            for same in [try await first, try await second, try await third] where !same { return "a reader has seen something else than the model" }
            return try await bench.run { _ in
                await graph.release(backend)
                let complaint = try await editor.end()
                try await graph.closeAll()
                return complaint
            }
        } catch { return "\(error)" }
    }

    /// Requests on one part of the disk, from one I/O thread.
    private func work(_ index: Int, _ backend: BlockBackend) async throws -> Bool {
        let base = index * Self.part
        defer { finished.add(1, ordering: .sequentiallyConsistent) }
        return try await bench.run(on: contexts[index]) { [seed] _ in
            var random = SplitMix(state: seed &* 31 &+ UInt64(index))
            var model = [UInt8](repeating: 0, count: Self.part)
            let buffer = IOBuffer(byteCount: Self.part)
            defer { withExtendedLifetime(buffer) {} }
            for _ in 0..<12 {
                let offset = Int.random(in: 0..<Self.part, using: &random)
                let count = Int.random(in: 1...min(Self.part - offset, 200), using: &random)
                let vector = buffer.vector(at: 0, byteCount: count)
                let place = GuestOffset(base + offset)
                if Bool.random(using: &random) {
                    let byte = UInt8.random(in: 1...255, using: &random)
                    vector.fill(with: byte)
                    if !backend.tryWrite(vector, at: place) { try await backend.write(vector, at: place) }
                    for position in offset..<offset + count { model[position] = byte }
                } else {
                    vector.fill(with: 0xEE)
                    if !backend.tryRead(vector, at: place) { try await backend.read(vector, at: place) }
                    if !buffer.copyToArray().prefix(count).elementsEqual(model[offset..<offset + count]) { return false }
                }
            }
            let all = buffer.vector(at: 0, byteCount: Self.part)
            try await backend.read(all, at: GuestOffset(base))
            return buffer.copyToArray() == model
        }
    }
}

/// Makes random changes to a graph, some of which must fail and leave it as it was. Runs on the graph's context.
private final class Editor: @unchecked Sendable {  // unchecked: only ever used on the graph's context
    private let graph: BlockGraph
    private let faults: Faults
    private var random: SplitMix
    private let say: (String) -> Void
    private var nextName = 0
    private var size = 0
    /// Filters in the graph, and who else has a backend.
    private var filters: [String] = []
    private var others: [BlockBackend] = []
    var root: BlockBackend?

    init(_ graph: BlockGraph, _ faults: Faults, _ random: SplitMix, say: @escaping (String) -> Void) {
        (self.graph, self.faults, self.random, self.say) = (graph, faults, random, say)
    }

    func begin(size: Int) async throws {
        self.size = size
        try await graph.add(memoryOptions("disk", size: size, faults: faults))
    }

    private func name(_ prefix: String) -> String {
        nextName += 1
        return "\(prefix)\(nextName)"
    }

    func edit() async throws {
        guard let root else { return }
        let before = await graph.snapshot
        let top = root.node.name
        // One change in four is told to fail at some step, if it has that step.
        let isSabotaged = Int.random(in: 0..<4, using: &random) == 0
        if isSabotaged { faults.arm([.prepare, .check, .participant].randomElement(using: &random) ?? .prepare, after: Int.random(in: 0..<2, using: &random)) }
        do {
            let kind = Int.random(in: 0..<8, using: &random)
            say("edit \(kind) on '\(top)'\(isSabotaged ? ", sabotaged" : "")")
            switch kind {
            case 0, 1: try await snapshot(top)
            case 2: try await insertFilter()
            case 3: try await removeFilter()
            case 4: try await changeBackends()
            case 5: try await replaceWithCopy()
            case 6: try await loop(top)
            default: try await drain()
            }
            faults.disarm()
        } catch let error as BlockError where error.message == "this step was told to fail" {
            faults.disarm()
            say("it has failed as told")
            try await expectUnchanged(before)
        }
    }

    /// What blockdev-snapshot does: an overlay over a disk of its own goes on top.
    private func snapshot(_ top: String) async throws {
        // Layers stay few: every one makes each request slower.
        guard await graph.allNodes.count < 9 else { return }
        let (file, overlay) = (name("f"), name("o"))
        do {
            try await graph.add(memoryOptions(file, size: size, faults: faults))
            try await graph.add(overlayOptions(overlay, file: file, faults: faults))
            ((await graph.node(named: overlay))?.driver as? OverlayDriver)?.forgetEverything()
            try await graph.change { change async throws(BlockError) in
                change.add(Saboteur(faults))
                try change.append(overlay, onTopOf: top)
            }
        } catch {
            faults.disarm()
            for name in [overlay, file] where await graph.node(named: name) != nil { try await graph.remove(nodeNamed: name) }
            throw error
        }
    }

    private func insertFilter() async throws {
        guard let node = await graph.allNodes.randomElement(using: &random)?.name, filters.count < 4 else { return }
        let filter = name("r")
        _ = try await graph.change { change async throws(BlockError) in
            change.add(Saboteur(faults))
            return try await change.insertFilter(rawOptions(over: node, name: filter), above: node, isMonitorOwned: true)
        }
        filters.append(filter)
    }

    private func removeFilter() async throws {
        guard let filter = filters.randomElement(using: &random) else { return }
        try await graph.change { change async throws(BlockError) in
            change.add(Saboteur(faults))
            try change.removeFilter(filter)
        }
        filters.removeAll { $0 == filter }
    }

    private func changeBackends() async throws {
        if let gone = others.first, Bool.random(using: &random) {
            others.removeFirst()
            return await graph.release(gone)
        }
        guard let node = await graph.allNodes.randomElement(using: &random)?.name else { return }
        let grant = Bool.random(using: &random) ? PermissionGrant(used: .consistentRead, shared: .all) : PermissionGrant(used: [], shared: .all)
        others.append(try await graph.makeBackend(named: "other", on: node, grant))
    }

    /// An edge to a disk that has one user is pointed to a copy of the disk, made while no request runs.
    private func replaceWithCopy() async throws {
        let state = await graph.snapshot
        guard let old = state.order.filter({ state.nodes[$0]?.node.driver is MemoryDriver }).randomElement(using: &random) else { return }
        let copy = name("c")
        try await graph.change { change async throws(BlockError) in
            let node = try await change.open(memoryOptions(copy, size: size, faults: faults), isMonitorOwned: true)
            try change.replace(old, with: copy)
            guard let source = change.state.nodes[old]?.node.driver as? MemoryDriver, let target = node.driver as? MemoryDriver else { return }
            change.add(CopyFirst(source, target))
            change.add(Saboteur(faults))
            change.release(old)
        }
    }

    private func loop(_ top: String) async throws {
        let state = await graph.snapshot
        guard let overlay = state.order.filter({ state.nodes[$0]?.node.driver is OverlayDriver }).randomElement(using: &random) else { return }
        do {
            try await graph.change { change async throws(BlockError) in _ = try change.attach(overlay, to: overlay, as: "backing", role: .copyOnWrite) }
            throw BlockError(.invalidArgument, "a loop was not refused")
        } catch let error as BlockError where error.message.hasSuffix("would create a cycle") {
            try await expectUnchanged(state)
        }
    }

    private func drain() async throws {
        guard let node = await graph.allNodes.randomElement(using: &random)?.name else { return }
        let outer = await graph.beginDrain(of: Bool.random(using: &random) ? nil : [node])
        // A change inside of a drained section, and a section inside.
        try? await changeBackends()
        try await graph.withSubtreeDrained(node) { () async throws(BlockError) in await Task.yield() }
        await graph.end(outer)
    }

    /// A change that has failed has left everything where it was.
    private func expectUnchanged(_ before: GraphState) async throws {
        let after = await graph.snapshot
        let isSame = after.order == before.order && after.edges.keys == before.edges.keys
            && before.edges.allSatisfy { id, edge in
                guard let now = after.edges[id] else { return false }
                return now.target == edge.target && now.grant == edge.grant && now.child.node.name == edge.target && now.child.permissions == edge.grant.used
            }
            && before.nodes.allSatisfy { name, record in after.nodes[name]?.cumulative == record.cumulative && after.nodes[name]?.children == record.children }
        guard isSame else { throw BlockError(.invalidArgument, "a change that has failed has left something behind") }
        for name in after.order {
            guard let record = after.nodes[name], let driver = record.node.driver as? MemoryDriver else { continue }
            if driver.isPrepared || driver.granted != record.cumulative {
                throw BlockError(.invalidArgument, "disk '\(name)' believes in a change that has failed")
            }
        }
    }

    /// The end of a run: what drivers have noticed.
    func end() async throws -> String? {
        for backend in others { await graph.release(backend) }
        for node in await graph.allNodes {
            let wasDisturbed = switch node.driver {
            case let disk as MemoryDriver: disk.changedWhileBusy.load(ordering: .relaxed)
            case let overlay as OverlayDriver: overlay.changedWhileBusy.load(ordering: .relaxed)
            default: false
            }
            if wasDisturbed { return "node '\(node.name)' has changed under a running request" }
        }
        return nil
    }
}

/// Copies a disk when no request can change it any more.
private final class CopyFirst: ChangeParticipant {
    private let source: MemoryDriver, target: MemoryDriver
    init(_ source: MemoryDriver, _ target: MemoryDriver) { (self.source, self.target) = (source, target) }
    func prepare() async throws(BlockError) { target.takeContents(of: source) }
    func commit() async {}
    func abort() async {}
}

/// Fails when it is told to.
private final class Saboteur: ChangeParticipant {
    private let faults: Faults
    init(_ faults: Faults) { self.faults = faults }
    func prepare() async throws(BlockError) { try faults.pass(.participant) }
    func commit() async {}
    func abort() async {}
}
