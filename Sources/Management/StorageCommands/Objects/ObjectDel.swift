import ManagedObjects
package import StorageSchema

extension StorageService {
    /// Removes an object that nobody uses. A thread that exports still run on ends with the last of them.
    package func objectDel(_ arguments: ObjectDelArguments) async throws {
        try objects.remove(arguments.id)
    }
}
