import BlockGraph
import Foundation
import IOCore
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

/// Random requests from three I/O threads, random edits of the graph, reopens, moves between the threads while requests run, failures now and then,
/// and a flat array of bytes that must always agree.
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
    /// How far the node has moved: workers change their threads with it.
    private let shift = Atomic<Int>(0)
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
            let editor = Editor(graph, faults, contexts, SeededGenerator(seed: seed &* 0x2545_F491_4F6C_DD1D), say: { [self] in say($0) })
            let backend = try await bench.run { _ in
                try await editor.begin(size: Self.size)
                return try await graph.makeBackend(named: "load", on: "disk", PermissionGrant(used: [.consistentRead, .write], shared: .all))
            }
            backend.setPlacement(.follows { [self] context in
                shift.store(contexts.firstIndex { $0 === context } ?? 0, ordering: .relaxed)
            })
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

    /// Requests on one part of the disk, from one I/O thread at a time.
    private func work(_ index: Int, _ backend: BlockBackend) async throws -> Bool {
        defer { finished.add(1, ordering: .sequentiallyConsistent) }
        let worker = Worker(backend, base: index * Self.part, byteCount: Self.part, seed: seed &* 31 &+ UInt64(index))
        var isSame = true
        while isSame, !worker.isDone {
            // As a connection does: what has been told meanwhile counts when no request of one's own is under way.
            let context = contexts[(index + shift.load(ordering: .relaxed)) % contexts.count]
            isSame = try await bench.run(on: context) { _ in try await worker.work() }
        }
        return isSame
    }
}

/// Reads and writes its part of a disk and compares with what it knows.
private final class Worker: @unchecked Sendable {  // unchecked: one thread at a time
    private let backend: BlockBackend
    private let base: Int
    private var model: [UInt8]
    private var random: SeededGenerator
    private let buffer: IOBuffer
    private var left = 12
    var isDone: Bool { left == 0 }

    init(_ backend: BlockBackend, base: Int, byteCount: Int, seed: UInt64) {
        self.backend = backend
        self.base = base
        model = [UInt8](repeating: 0, count: byteCount)
        random = SeededGenerator(seed: seed)
        buffer = IOBuffer(byteCount: byteCount)
    }

    /// Some requests; after the last ones everything is read.
    func work() async throws -> Bool {
        let count = min(left, Int.random(in: 1...5, using: &random))
        for _ in 0..<count where try await !request() { return false }
        left -= count
        if !isDone { return true }
        try await backend.read(buffer.vector, at: GuestOffset(base))
        return buffer.copyToArray() == model
    }

    private func request() async throws -> Bool {
        let offset = Int.random(in: 0..<model.count, using: &random)
        let count = Int.random(in: 1...min(model.count - offset, 200), using: &random)
        let vector = buffer.vector(at: 0, byteCount: count)
        let place = GuestOffset(base + offset)
        if Bool.random(using: &random) {
            let byte = UInt8.random(in: 1...255, using: &random)
            vector.fill(with: byte)
            if !backend.tryWrite(vector, at: place) { try await backend.write(vector, at: place) }
            for position in offset..<offset + count { model[position] = byte }
            return true
        }
        vector.fill(with: 0xEE)
        if !backend.tryRead(vector, at: place) { try await backend.read(vector, at: place) }
        return buffer.copyToArray().prefix(count).elementsEqual(model[offset..<offset + count])
    }
}

/// Makes random changes to a graph, some of which must fail and leave it as it was. Runs on the graph's context.
private final class Editor: @unchecked Sendable {  // unchecked: only ever used on the graph's context
    private let graph: BlockGraph
    private let faults: Faults
    private var random: SeededGenerator
    private let say: (String) -> Void
    private var nextName = 0
    private var size = 0
    /// Filters in the graph, and who else has a backend.
    private var filters: [String] = []
    private var others: [BlockBackend] = []
    var root: BlockBackend?

    private let contexts: [IOContext]

    init(_ graph: BlockGraph, _ faults: Faults, _ contexts: [IOContext], _ random: SeededGenerator, say: @escaping (String) -> Void) {
        (self.graph, self.faults, self.contexts, self.random, self.say) = (graph, faults, contexts, random, say)
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
            let kind = Int.random(in: 0..<10, using: &random)
            say("edit \(kind) on '\(top)'\(isSabotaged ? ", sabotaged" : "")")
            switch kind {
            case 0, 1: try await snapshot(top)
            case 2: try await insertFilter()
            case 3: try await removeFilter()
            case 4: try await changeBackends()
            case 5: try await replaceWithCopy()
            case 6: try await loop(top)
            case 7: try await reopen(top)
            case 8: try await move()
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

    /// Several filters at once get other options, or the same, or are to be read-only under a writer, which must be refused for all of them.
    private func reopen(_ top: String) async throws {
        let before = await graph.snapshot
        var definitions: [BlockdevOptions] = []
        for filter in filters.shuffled(using: &random).prefix(3) {
            guard let below = before.nodes[filter]?.children.compactMap({ before.edges[$0]?.target }).first else { continue }
            var options = rawOptions(over: below, name: filter)
            options.discard = Bool.random(using: &random) ? .unmap : .ignore
            options.cache = BlockdevCacheOptions(noFlush: Bool.random(using: &random))
            definitions.append(options)
        }
        guard !definitions.isEmpty else { return }
        let victim = Int.random(in: 0..<2 * definitions.count, using: &random)
        if victim < definitions.count { definitions[victim].readOnly = true }
        if try await isRefused(definitions) {
            faults.disarm()
            try await expectUnchanged(before)
            return
        }
        for definition in definitions {
            guard let node = await graph.node(named: definition.nodeName ?? "") else { continue }
            if node.options.ignoresFlushes != (definition.cache?.noFlush ?? false) || node.isReadOnly != (definition.readOnly ?? false) {
                throw BlockError(.invalidArgument, "node '\(node.name)' has not got the options that it was reopened with")
            }
        }
        // A filter that nobody writes through may be read-only; a later change that wants to write through it would be refused.
        if victim < definitions.count {
            definitions[victim].readOnly = false
            faults.disarm()
            try await graph.reopen(definitions)
        }
    }

    /// Whether a reopen fails because somebody writes through one of the nodes.
    private func isRefused(_ definitions: [BlockdevOptions]) async throws(BlockError) -> Bool {
        let failure: BlockError?
        do throws(BlockError) {
            try await graph.reopen(definitions)
            failure = nil
        } catch { failure = error }
        guard let failure else { return false }
        if failure.code == .readOnly { return true }
        throw failure
    }

    private func move() async throws {
        guard let node = await graph.allNodes.randomElement(using: &random)?.name, let target = contexts.randomElement(using: &random) else { return }
        try await graph.move(node, isForced: true) { () throws(BlockError) in target }
        if await graph.context(ofNodeNamed: node) !== target { throw BlockError(.invalidArgument, "node '\(node)' has not moved") }
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
