package import StorageSchema

extension StorageService {
    /// Makes an object.
    package func objectAdd(_ arguments: ObjectOptions) async throws {
        try checkNotShuttingDown()
        try ObjectCatalog.add(arguments, to: objects)
    }
}
