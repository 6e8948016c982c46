package import StrataBase
import Synchronization

/// The objects of one storage service or one run of a tool, by id. Any thread.
///
/// Who needs an object for longer than a moment takes an `ObjectUse`: as long as one exists the object cannot be deleted.
package final class ObjectRegistry: Sendable {
    private struct Entry {
        let id: String
        let object: any ManagedObject
        /// Who uses it, in words for messages; the keys tell equal users apart.
        var users: [Int: String] = [:]
    }

    private struct State {
        /// In the order in which they were added.
        var entries: [Entry] = []
        var nextUse = 0
    }

    private let state = Mutex(State())

    package init() {}

    /// Takes an object in.
    /// - Throws: `.invalidArgument` for an id that is none, `.alreadyExists` when it is taken.
    package func add(_ object: any ManagedObject, id: String) throws(BlockError) {
        guard Self.isWellFormed(id) else { throw BlockError(.invalidArgument, "Parameter 'id' expects an identifier") }
        let isNew = state.withLock { state in
            if state.entries.contains(where: { $0.id == id }) { return false }
            state.entries.append(Entry(id: id, object: object))
            return true
        }
        if !isNew { throw Self.duplicate(id) }
    }

    /// The refusal of an id before anything is made for it.
    /// - Throws: as `add` does.
    package func checkNewID(_ id: String) throws(BlockError) {
        guard Self.isWellFormed(id) else { throw BlockError(.invalidArgument, "Parameter 'id' expects an identifier") }
        if state.withLock({ $0.entries.contains { $0.id == id } }) { throw Self.duplicate(id) }
    }

    private static func duplicate(_ id: String) -> BlockError {
        BlockError(.alreadyExists, "attempt to add duplicate property '\(id)' to object (type 'container')")
    }

    /// A letter, then letters, digits, `-`, `.` and `_`.
    package static func isWellFormed(_ id: String) -> Bool {
        func isLetter(_ byte: UInt8) -> Bool { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20) }
        func isOther(_ byte: UInt8) -> Bool {
            (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || [UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_")].contains(byte)
        }
        guard let first = id.utf8.first, isLetter(first) else { return false }
        return id.utf8.allSatisfy { isLetter($0) || isOther($0) }
    }

    /// Takes an object out.
    /// - Throws: `.notFound`; `.permissionConflict` while it is in use, naming a user.
    package func remove(_ id: String) throws(BlockError) {
        // The object may end here; that is no work for inside the lock.
        let outcome = state.withLock { state -> Result<any ManagedObject, BlockError> in
            guard let index = state.entries.firstIndex(where: { $0.id == id }) else { return .failure(BlockError(.notFound, "object '\(id)' not found")) }
            let entry = state.entries[index]
            if let user = entry.users.min(by: { $0.key < $1.key })?.value, !entry.object.mayBeRemovedInUse {
                return .failure(BlockError(.permissionConflict, "object '\(id)' is in use, can not be deleted: used by \(user)"))
            }
            state.entries.remove(at: index)
            return .success(entry.object)
        }
        _ = try outcome.get()
    }

    /// The object of that id, if there is one of that type. For a look of a moment: nothing keeps it from being deleted.
    package func object<Object>(_ id: String, as _: Object.Type = Object.self) -> Object? {
        state.withLock { state in state.entries.first { $0.id == id }?.object } as? Object
    }

    /// The object of that id, which cannot be deleted until the use ends. Nil if there is none of that type: the caller knows what to call it.
    /// - Parameters:
    ///   - type: a class, or a protocol that several classes adopt.
    ///   - user: who is named when somebody tries to delete the object: "node 'disk'".
    package func use<Object: Sendable>(_ id: String, as type: Object.Type = Object.self, by user: String) -> ObjectUse<Object>? {
        state.withLock { state in
            guard let index = state.entries.firstIndex(where: { $0.id == id }), let object = state.entries[index].object as? Object else { return nil }
            state.nextUse += 1
            state.entries[index].users[state.nextUse] = user
            return ObjectUse(object, identity: state.entries[index].object, number: state.nextUse, registry: self)
        }
    }

    func endUse(_ number: Int, of object: any ManagedObject) {
        state.withLock { state in
            guard let index = state.entries.firstIndex(where: { $0.object === object }) else { return }
            state.entries[index].users[number] = nil
        }
    }

    /// Every object with its id, in the order in which they were added.
    package var all: [(id: String, object: any ManagedObject)] { state.withLock { state in state.entries.map { ($0.id, $0.object) } } }

    /// Takes everything out and ends it. Call once, last: no use may be left.
    package func closeAll() async {
        let entries = state.withLock { state in
            defer { state.entries = [] }
            return state.entries
        }
        for entry in entries.reversed() { await entry.object.close() }
    }
}

/// A claim on an object, which ends with `end` or with the last reference to it.
package final class ObjectUse<Object: Sendable>: Sendable {
    package let object: Object
    private let identity: any ManagedObject
    private let number: Int
    private let registry: ObjectRegistry

    init(_ object: Object, identity: any ManagedObject, number: Int, registry: ObjectRegistry) {
        self.object = object
        self.identity = identity
        self.number = number
        self.registry = registry
    }

    deinit { registry.endUse(number, of: identity) }

    /// Ends the claim now; more than once is as good as once.
    package func end() { registry.endUse(number, of: identity) }
}
