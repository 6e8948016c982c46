package import BlockGraph
package import IOCore
import ManagedObjects
package import StorageSchema
package import StrataBase

/// Slows requests down to the limits of a throttle group (`driver=throttle`). Flushes are never held back.
///
/// Where the group limits nothing, requests pass as if the filter were not there: one load says so.
package final class ThrottleDriver: FilterDriver, HostFileBacked, Draining, @unchecked Sendable {
    // unchecked: `membership` and `candidate` change only while no request runs (Reopening).

    package static let formatName = "throttle"

    package let file: BlockChild
    private let objects: ObjectRegistry
    /// For messages.
    private let nodeName: String
    private var membership: Membership
    /// The membership that a reopen prepares.
    private var candidate: Membership?

    private var group: ThrottleGroup { membership.group }
    /// Who we are in the group.
    private var member: Int { membership.number }

    private struct Membership {
        let use: ObjectUse<ThrottleGroup>
        let group: ThrottleGroup
        let number: Int

        init(_ name: String, _ objects: ObjectRegistry, nodeName: String) throws(BlockError) {
            guard let use = objects.use(name, as: ThrottleGroup.self, by: "node '\(nodeName)'") else {
                throw BlockError(.notFound, "Throttle group '\(name)' does not exist")
            }
            self.use = use
            group = use.object
            number = group.join()
        }
    }

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .throttle(let own) = options.branch else { throw BlockError(.invalidArgument, "options of another driver were given to 'throttle'") }
        let file = try await opener.openChild(own.file, as: "file", role: [.filtered, .primary])
        return ThrottleDriver(file, opener, try Membership(own.throttleGroup, opener.objects, nodeName: opener.nodeName))
    }

    private init(_ file: BlockChild, _ opener: NodeOpener, _ membership: Membership) {
        self.file = file
        objects = opener.objects
        nodeName = opener.nodeName
        self.membership = membership
    }

    package func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool { !group.limits(.read) && file.tryRead(target, at: offset) }

    package func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        await group.admit(target.byteCount, .read, member: member)
        try await file.read(target, at: offset, flags: flags)
    }

    package func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool {
        !group.limits(.write) && file.tryWrite(source, at: offset, flags: flags)
    }

    package func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        await group.admit(source.byteCount, .write, member: member)
        try await file.write(source, at: offset, flags: flags)
    }

    package func writeZeroes(_ range: GuestRange, flags: RequestFlags) async throws(BlockError) -> Support {
        await group.admit(range.byteCount, .write, member: member)
        try await file.writeZeroes(range, flags: flags)
        return .done
    }

    package func discard(_ range: GuestRange) async throws(BlockError) -> Support {
        await group.admit(range.byteCount, .write, member: member)
        try await file.discard(range)
        return .done
    }

    /// Data that the kernel moves by itself is counted by nobody.
    package func hostFileRange(of range: GuestRange) -> HostFileRange? { group.limits(.read) ? nil : file.hostFileRange(of: range) }

    package func beginDrain() { group.beginDrain(of: member) }
    package func endDrain() { group.endDrain(of: member) }

    package func close() async throws(BlockError) { membership.use.end() }

    // MARK: Reopening: into another group

    package static var changeableOptions: Set<String> { ["throttle-group"] }

    package func stageReopen(_ request: ReopenRequest) throws(BlockError) {
        guard case .throttle(let own) = request.options.branch else { throw BlockError(.invalidArgument, "options of another driver were given to 'throttle'") }
        candidate = try Membership(own.throttleGroup, objects, nodeName: nodeName)
    }

    package func commitReopen() async {
        guard let next = candidate else { return }
        candidate = nil
        membership.use.end()
        membership = next
    }

    package func abortReopen() async {
        candidate?.use.end()
        candidate = nil
    }
}
