package import QAPIRuntime
package import StorageSchema

extension StorageService {
    /// Reads a property of an object.
    package func qomGet(_ arguments: QomGetArguments) async throws -> JSONValue {
        let (node, path) = try objectTree.resolve(arguments.path)
        return try node.value(of: arguments.property, path: path)
    }
}
