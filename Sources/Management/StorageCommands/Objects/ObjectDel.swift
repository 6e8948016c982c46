package import StorageSchema

extension StorageService {
    /// Removes an object. A thread that exports still run on ends with the last of them.
    package func objectDel(_ arguments: ObjectDelArguments) async throws {
        try threads.remove(arguments.id)
    }
}
