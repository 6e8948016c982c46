package import StorageSchema

extension StorageService {
    /// Changes a property of an object.
    package func qomSet(_ arguments: QomSetArguments) async throws {
        try objectTree.resolve(arguments.path).node.set(arguments.property, to: arguments.value)
    }
}
