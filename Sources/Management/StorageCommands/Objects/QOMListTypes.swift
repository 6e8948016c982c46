import ManagedObjects
package import StorageSchema

extension StorageService {
    /// Lists the types of objects.
    package func qomListTypes(_ arguments: QomListTypesArguments) async throws -> [ObjectTypeInfo] {
        ObjectCatalog.types.entries(implementing: arguments.implements).filter { !$0.isAbstract || arguments.abstract == true }
            .map { ObjectTypeInfo(name: $0.name, abstract: $0.isAbstract ? true : nil, parent: $0.parent) }
    }
}
