import BlockFilters
import CharacterDevices
package import ManagedObjects
package import StorageSchema
package import StrataBase

/// The types of objects of this build: the one place that a new type is added to (Docs/AddAnObject.md).
package enum ObjectCatalog {
    /// Every type that `object-add` makes.
    package static let userCreatable: [any ManagedObject.Type] = [
        AnonymousCredentialObject.self,
        FileAuthorization.self,
        IOThread.self,
        ListAuthorization.self,
        Secret.self,
        SharedKeyCredentialObject.self,
        SimpleAuthorization.self,
        ThrottleGroup.self,
        X509CredentialObject.self,
    ]

    package static let types = ObjectTypeTable(userCreatable: userCreatable, others: ChardevTable.types)

    /// Makes an object and takes it into the registry.
    /// - Throws: what is wrong with the id or the options; then nothing remains.
    package static func add(_ options: ObjectOptions, to registry: ObjectRegistry) throws(BlockError) {
        try registry.checkNewID(options.id)
        try registry.add(try make(options, registry), id: options.id)
    }

    /// The compiler asks for a case here when the schema gains a type.
    private static func make(_ options: ObjectOptions, _ registry: ObjectRegistry) throws(BlockError) -> any ManagedObject {
        switch options.branch {
        case .authzList(let properties): ListAuthorization(properties)
        case .authzListfile(let properties): try FileAuthorization(properties)
        case .authzSimple(let properties): SimpleAuthorization(properties)
        case .iothread(let properties): try IOThread(properties, id: options.id)
        case .secret(let properties): try Secret(properties, in: registry)
        case .throttleGroup(let properties): try ThrottleGroup(properties)
        case .tlsCredsAnon(let properties): try AnonymousCredentialObject(properties)
        case .tlsCredsPsk(let properties): try SharedKeyCredentialObject(properties)
        case .tlsCredsX509(let properties): try X509CredentialObject(properties, in: registry)
        }
    }
}
