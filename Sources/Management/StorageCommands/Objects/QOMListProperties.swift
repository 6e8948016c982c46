import ManagedObjects
import QAPIRuntime
package import StorageSchema

extension StorageService {
    /// Lists the properties that objects of a type have.
    package func qomListProperties(_ arguments: QomListPropertiesArguments) async throws -> [ObjectPropertyInfo] {
        guard let type = ObjectCatalog.types.entry(named: arguments.typename) else {
            throw QMPError("Class '\(arguments.typename)' not found", class: .deviceNotFound)
        }
        guard ObjectCatalog.types.hasProperties(type) else { throw QMPError("Parameter 'typename' expects a QOM type") }
        return type.properties
    }
}
