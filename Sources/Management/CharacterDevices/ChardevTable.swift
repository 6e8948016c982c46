import IOCore
package import ManagedObjects
package import StorageSchema
package import StrataBase
import Synchronization

/// The character devices of one daemon, by label. On the thread of its context, but for `all` and `find`.
package final class ChardevTable: Sendable {
    private let devices = Mutex<[any CharacterDevice]>([])
    /// Making a device may take its time (connecting, waiting for a client): one after the other.
    private let changes = AsyncMutex()

    package init() {}

    /// The types of the devices, for the object model.
    package static let types: [any ManagedObject.Type] = [
        FileChardev.self, NullChardev.self, PipeChardev.self, PtyChardev.self, RingBufferChardev.self, SocketChardev.self, StdioChardev.self,
    ]

    /// In the order in which they were added.
    package var all: [any CharacterDevice] { devices.withLock { $0 } }

    package func find(_ label: String) -> (any CharacterDevice)? { devices.withLock { $0.first { $0.label == label } } }

    /// - Throws: when the label is taken or the device cannot be made; then nothing remains.
    @discardableResult
    package func add(_ label: String, _ backend: ChardevBackend, _ factory: ChardevFactory) async throws(BlockError) -> any CharacterDevice {
        try await changes.withLock { () async throws(BlockError) -> any CharacterDevice in
            if find(label) != nil { throw BlockError(.alreadyExists, "Chardev with id '\(label)' already exists") }
            try checkStandardStreams(backend, replacing: nil)
            let device = try await factory.make(label, backend)
            devices.withLock { $0.append(device) }
            return device
        }
    }

    /// Puts another device in the place of one that nobody uses.
    /// - Throws: as `add`; the old device stays then.
    package func change(_ label: String, _ backend: ChardevBackend, _ factory: ChardevFactory) async throws(BlockError) -> any CharacterDevice {
        try await changes.withLock { () async throws(BlockError) -> any CharacterDevice in
            guard let old = find(label) else { throw BlockError(.notFound, "Chardev '\(label)' does not exist") }
            if old.isFrontendOpen { throw BlockError(.permissionConflict, "Chardev user does not support chardev hotswap") }
            try checkStandardStreams(backend, replacing: old)
            let new = try await factory.make(label, backend)
            if old.isFrontendOpen {
                new.shutDown()
                throw BlockError(.permissionConflict, "Chardev user does not support chardev hotswap")
            }
            devices.withLock { devices in
                if let index = devices.firstIndex(where: { $0 === old }) { devices[index] = new }
            }
            old.shutDown()
            return new
        }
    }

    private func checkStandardStreams(_ backend: ChardevBackend, replacing old: (any CharacterDevice)?) throws(BlockError) {
        guard case .stdio = backend.branch else { return }
        if all.contains(where: { $0 is StdioChardev && $0 !== old }) {
            throw BlockError(.permissionConflict, "cannot use stdio by multiple character devices")
        }
    }

    /// - Throws: when there is no such device or somebody uses it.
    package func remove(_ label: String) throws(BlockError) {
        guard let device = find(label) else { throw BlockError(.notFound, "Chardev '\(label)' not found") }
        if device.isFrontendOpen { throw BlockError(.permissionConflict, "Chardev '\(label)' is busy") }
        devices.withLock { $0.removeAll { $0 === device } }
        device.shutDown()
    }

    /// Ends all devices. Their users have gone.
    package func shutDownAll() {
        let all = devices.withLock { devices in
            defer { devices = [] }
            return devices
        }
        for device in all.reversed() { device.shutDown() }
    }
}
