import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import Synchronization

/// What the drivers of a test share: a way to make the next step of one of them fail. Drivers find theirs by the number in an option that
/// they have no other use for.
final class Faults: Sendable {
    private static let all = Mutex<[UInt64: Faults]>([:])
    private static let nextNumber = Atomic<UInt64>(1)
    static func numbered(_ number: UInt64) -> Faults? { all.withLock { $0[number] } }
    let number = nextNumber.add(1, ordering: .relaxed).oldValue

    init() { Self.all.withLock { $0[number] = self } }
    func forget() { Self.all.withLock { $0[number] = nil } }


    enum Step: Hashable, Sendable { case prepare, check, participant }
    private let armed = Mutex<(step: Step, countdown: Int)?>(nil)

    /// The `countdown`-th such step from now on fails, once.
    func arm(_ step: Step, after countdown: Int = 0) { armed.withLock { $0 = (step, countdown) } }
    func disarm() { armed.withLock { $0 = nil } }

    func pass(_ step: Step) throws(BlockError) {
        let fails = armed.withLock { armed in
            guard let now = armed, now.step == step else { return false }
            if now.countdown > 0 {
                armed = (step, now.countdown - 1)
                return false
            }
            armed = nil
            return true
        }
        if fails { throw BlockError(.io, "this step was told to fail") }
    }
}

/// A disk in memory. It stands in for `null-co`, whose options it uses, and remembers what the graph has told it.
final class MemoryDriver: BlockDriver, Flushing, Resizing {
    static let formatName = "null-co"
    static let kind = DriverKind.protocol

    /// Room to grow to four times the first size.
    private let memory: IOBuffer
    private let access = Mutex(())
    private let size: Atomic<Int>
    private let grants = Mutex((inForce: PermissionGrant.none, prepared: PermissionGrant?.none))
    /// Requests that take the slow way at the moment, and whether the graph has changed something while there were some.
    private let busy = Atomic<Int>(0)
    let changedWhileBusy = Atomic<Bool>(false)
    let isClosed = Atomic<Bool>(false)
    let faults: Faults?

    static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .nullCo(let own) = options.branch else { throw BlockError(.invalidArgument, "options of another driver") }
        return MemoryDriver(own.size ?? 4096, Faults.numbered(own.latencyNs ?? 0))
    }

    init(_ byteCount: Int, _ faults: Faults?) {
        memory = IOBuffer(zeroed: 4 * byteCount)
        size = Atomic(byteCount)
        self.faults = faults
    }

    var length: Int { size.load(ordering: .relaxed) }
    var granted: PermissionGrant { grants.withLock { $0.inForce } }
    var isPrepared: Bool { grants.withLock { $0.prepared != nil } }

    // Every other request takes the slow way, so that both ways meet every change.
    private let toggle = Atomic<UInt32>(0)
    private var isQuick: Bool { toggle.add(1, ordering: .relaxed).oldValue & 1 == 0 }

    func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool {
        guard isQuick else { return false }
        copyOut(target, offset.rawValue)
        return true
    }

    func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        busy.add(1, ordering: .sequentiallyConsistent)
        await Task.yield()
        copyOut(target, offset.rawValue)
        busy.subtract(1, ordering: .sequentiallyConsistent)
    }

    func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool {
        guard isQuick else { return false }
        copyIn(source, offset.rawValue)
        return true
    }

    func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        busy.add(1, ordering: .sequentiallyConsistent)
        await Task.yield()
        copyIn(source, offset.rawValue)
        busy.subtract(1, ordering: .sequentiallyConsistent)
    }

    func flush() async throws(BlockError) {}

    func resize(to byteCount: Int, exact: Bool, preallocation: PreallocMode) async throws(BlockError) {
        guard byteCount <= memory.byteCount else { throw BlockError(.noSpace, "no room for \(byteCount) bytes") }
        if byteCount < length { access.withLock { _ in memory.vector(at: byteCount, byteCount: length - byteCount).zero() } }
        size.store(byteCount, ordering: .relaxed)
    }

    /// To be called while no request runs.
    func takeContents(of other: MemoryDriver) {
        access.withLock { _ in memory.vector(at: 0, byteCount: length).copy(from: other.memory.vector(at: 0, byteCount: length)) }
    }

    private func copyOut(_ target: IOVector, _ offset: Int) {
        precondition(!isClosed.load(ordering: .relaxed), "a request has reached a closed node")
        access.withLock { _ in target.copy(from: memory.vector(at: offset, byteCount: target.byteCount)) }
    }

    private func copyIn(_ source: IOVector, _ offset: Int) {
        precondition(!isClosed.load(ordering: .relaxed), "a request has reached a closed node")
        precondition(granted.used.contains(.write), "a write has reached a node on which nobody may write")
        access.withLock { _ in memory.vector(at: offset, byteCount: source.byteCount).copy(from: source) }
    }

    func preparePermissions(_ grant: PermissionGrant) async throws(BlockError) {
        // Nobody fails to give something back.
        if !grant.used.isSubset(of: granted.used) || !grant.shared.isSuperset(of: granted.shared) { try faults?.pass(.prepare) }
        if granted.used.contains(.write) != grant.used.contains(.write), busy.load(ordering: .sequentiallyConsistent) > 0 {
            changedWhileBusy.store(true, ordering: .relaxed)
        }
        grants.withLock { $0.prepared = grant }
    }

    func commitPermissions() async {
        grants.withLock { grants in
            if let next = grants.prepared { grants.inForce = next }
            grants.prepared = nil
        }
    }

    func abortPermissions() async { grants.withLock { $0.prepared = nil } }
    func close() async throws(BlockError) { isClosed.store(true, ordering: .relaxed) }
}

/// A layer that keeps what is written to it in units and shows its backing node elsewhere. It stands in for `qcow2` with its options: `file` is
/// any node of the right size, which holds the data; which units it has is known in memory only.
final class OverlayDriver: BlockDriver, Flushing, ChildChanging {
    static let formatName = "qcow2"
    static let kind = DriverKind.format
    static let supportsBacking = true
    static let unit = 64

    private let file: BlockChild
    private let slot: ChildSlot
    private let present: Mutex<Set<Int>>
    private let busy = Atomic<Int>(0)
    let changedWhileBusy = Atomic<Bool>(false)
    private let isClosed = Atomic<Bool>(false)
    private let faults: Faults?
    private let writes = AsyncMutex()

    static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .qcow2(let own) = options.branch else { throw BlockError(.invalidArgument, "options of another driver") }
        let file = try await opener.openChild(own.file, as: "file", role: .image)
        var backing: BlockChild?
        switch own.backing {
        case .reference(let name): backing = try await opener.openChild(.reference(name), as: "backing", role: .copyOnWrite)
        case .definition(let options): backing = try await opener.openChild(.definition(options), as: "backing", role: .copyOnWrite)
        case .null, nil: break
        }
        return OverlayDriver(file, backing, Faults.numbered(UInt64(own.cacheSize ?? 0)))
    }

    private init(_ file: BlockChild, _ backing: BlockChild?, _ faults: Faults?) {
        self.file = file
        slot = ChildSlot(backing)
        // Without a backing node when it is made, everything counts as its own.
        present = Mutex(backing == nil ? Set(0..<(file.length / Self.unit)) : [])
        self.faults = faults
    }

    var length: Int { file.length }
    var children: [BlockChild] { slot.child.map { [file, $0] } ?? [file] }
    /// Makes it a layer that has nothing yet, to be put on top of a chain.
    func forgetEverything() { present.withLock { $0 = [] } }

    func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        enter()
        defer { leave() }
        var done = 0
        while done < target.byteCount {
            let position = offset.rawValue + done
            let count = min(Self.unit - position % Self.unit, target.byteCount - done)
            let piece = target.slice(at: done, byteCount: count)
            if present.withLock({ $0.contains(position / Self.unit) }) {
                try await file.read(piece, at: GuestOffset(position))
            } else if let backing = slot.child {
                try await backing.read(piece, at: GuestOffset(position))
            } else {
                piece.zero()
            }
            done += count
        }
    }

    func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        enter()
        defer { leave() }
        await writes.lock()
        defer { writes.unlock() }
        var done = 0
        while done < source.byteCount {
            let position = offset.rawValue + done
            let count = min(Self.unit - position % Self.unit, source.byteCount - done)
            let index = position / Self.unit
            if !present.withLock({ $0.contains(index) }) {
                let unit = IOBuffer(zeroed: Self.unit)
                defer { withExtendedLifetime(unit) {} }
                if let backing = slot.child { try await backing.read(unit.vector, at: GuestOffset(index * Self.unit)) }
                try await file.write(unit.vector, at: GuestOffset(index * Self.unit))
                _ = present.withLock { $0.insert(index) }
            }
            try await file.write(source.slice(at: done, byteCount: count), at: GuestOffset(position))
            done += count
        }
    }

    private func enter() {
        precondition(!isClosed.load(ordering: .relaxed), "a request has reached a closed node")
        busy.add(1, ordering: .sequentiallyConsistent)
    }
    private func leave() { busy.subtract(1, ordering: .sequentiallyConsistent) }

    func flush() async throws(BlockError) { try await file.flush() }

    func check(children: [BlockChild]) async throws(BlockError) { try faults?.pass(.check) }

    func adopt(children: [BlockChild]) {
        if busy.load(ordering: .sequentiallyConsistent) > 0 { changedWhileBusy.store(true, ordering: .relaxed) }
        slot.set(children.first { $0.role.contains(.copyOnWrite) })
    }

    func close() async throws(BlockError) { isClosed.store(true, ordering: .relaxed) }
}

func memoryOptions(_ name: String, size: Int = 4096, readOnly: Bool? = nil, faults: Faults? = nil) -> BlockdevOptions {
    BlockdevOptions(.nullCo(BlockdevOptionsNull(size: size, latencyNs: faults?.number)), nodeName: name, readOnly: readOnly)
}

func overlayOptions(_ name: String, file: String, backing: String? = nil, faults: Faults? = nil) -> BlockdevOptions {
    let backing: BlockdevRefOrNull = backing.map { .reference($0) } ?? .null
    return BlockdevOptions(.qcow2(BlockdevOptionsQcow2(file: .reference(file), backing: backing, cacheSize: faults.map { Int($0.number) })), nodeName: name)
}
