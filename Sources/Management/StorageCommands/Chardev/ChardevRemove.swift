import CharacterDevices
package import StorageSchema

extension StorageService {
    /// Removes a character device that nobody uses.
    package func chardevRemove(_ arguments: ChardevRemoveArguments) async throws { try chardevs.remove(arguments.id) }
}
