package import StorageSchema

extension StorageService {
    /// Lists the properties of an object and the objects below it.
    package func qomList(_ arguments: QomListArguments) async throws -> [ObjectPropertyInfo] {
        try objectTree.resolve(arguments.path).node.properties
    }
}
