import CharacterDevices
package import StorageSchema

extension StorageService {
    /// Lists the character devices.
    package func queryChardev() async throws -> [ChardevInfo] {
        chardevs.all.map { ChardevInfo(label: $0.label, filename: $0.filename, frontendOpen: $0.isFrontendOpen) }
    }

    /// Lists the kinds of character devices.
    package func queryChardevBackends() async throws -> [ChardevBackendInfo] {
        ChardevFactory.kinds.map { ChardevBackendInfo(name: $0) }
    }
}
