package import StorageSchema

/// The tree of types that `qom-list-types` shows: the concrete types of objects below the abstract ones that they share.
package struct ObjectTypeTable: Sendable {
    package struct Entry: Sendable {
        package let name: String
        package let parent: String?
        package let isAbstract: Bool
        /// Whether users make objects of it; every type below one that says so says so too.
        package let isUserCreatable: Bool
        package let properties: [ObjectPropertyInfo]

        package init(
            _ name: String, parent: String?, isAbstract: Bool = false, isUserCreatable: Bool = false, properties: [(name: String, type: String)] = []
        ) {
            self.name = name
            self.parent = parent
            self.isAbstract = isAbstract
            self.isUserCreatable = isUserCreatable
            self.properties =
                [ObjectPropertyInfo(name: "type", type: "string")] + properties.map { ObjectPropertyInfo(name: $0.name, type: $0.type) }
        }

        /// A concrete type.
        package init(_ type: (some ManagedObject).Type, isUserCreatable: Bool) {
            name = type.typeName
            parent = type.parentTypeName
            isAbstract = false
            self.isUserCreatable = isUserCreatable
            properties = type.propertyList
        }

        var isInterface: Bool { name == "interface" || parent == "interface" }
    }

    /// What the concrete types stand under.
    private static let common = [
        Entry("object", parent: nil, isAbstract: true),
        Entry("interface", parent: nil, isAbstract: true),
        Entry("user-creatable", parent: "interface", isAbstract: true),
        Entry("container", parent: "object"),
        Entry("authz", parent: "object", isAbstract: true),
        Entry("chardev", parent: "object", isAbstract: true),
        Entry("chardev-fd", parent: "chardev", isAbstract: true),
        Entry(
            "event-loop-base", parent: "object", isAbstract: true, isUserCreatable: true,
            properties: [("thread-pool-min", "int"), ("aio-max-batch", "int"), ("thread-pool-max", "int")]),
        Entry(
            "secret_common", parent: "object", isAbstract: true, isUserCreatable: true,
            properties: [("iv", "string"), ("keyid", "string"), ("format", "QCryptoSecretFormat")]),
        Entry(
            "tls-creds", parent: "object", isAbstract: true,
            properties: [("dir", "string"), ("endpoint", "QCryptoTLSCredsEndpoint"), ("priority", "string"), ("verify-peer", "bool")]),
    ]

    package let entries: [Entry]

    /// - Parameters:
    ///   - userCreatable: the types that `object-add` makes.
    ///   - others: types whose objects come into being in other ways.
    package init(userCreatable: [any ManagedObject.Type], others: [any ManagedObject.Type] = []) {
        entries = Self.common + userCreatable.map { Entry($0, isUserCreatable: true) } + others.map { Entry($0, isUserCreatable: false) }
    }

    package func entry(named name: String) -> Entry? { entries.first { $0.name == name } }

    /// Whether properties of the type can be listed: interfaces have none.
    package func hasProperties(_ entry: Entry) -> Bool { !entry.isInterface }

    /// The types that are, directly or not, of the type `ancestor`; an unknown one has none below it.
    package func entries(implementing ancestor: String?) -> [Entry] {
        guard let ancestor else { return entries }
        return entries.filter { entry in
            if ancestor == "user-creatable", entry.isUserCreatable { return true }
            var name: String? = entry.name
            while let current = name {
                if current == ancestor { return true }
                name = self.entry(named: current)?.parent
            }
            return false
        }
    }

    /// The names of the types that users make objects of, sorted.
    package var userCreatableNames: [String] { entries.filter { $0.isUserCreatable && !$0.isAbstract }.map(\.name).sorted() }
}
