package import QAPIRuntime
package import StorageSchema

/// Something that users make by `object-add` or `--object` and that nodes, exports and servers refer to by its id: an I/O thread, a secret,
/// a throttle group. Docs/AddAnObject.md says how to add a type.
///
/// Its methods may be called on any thread, so its state is immutable or behind a `Mutex`.
package protocol ManagedObject: AnyObject, Sendable {
    /// The name of the type in the object model: "iothread".
    static var typeName: String { get }
    /// The type above it in the object model; it is listed in `ObjectTypeTable`.
    static var parentTypeName: String { get }
    /// What `qom-get` and `qom-set` reach, without `type`, which every object has.
    static var properties: [ObjectProperty<Self>] { get }
    /// Whether `object-del` takes only the name away from an object that is in use; its users keep it until the last has gone. False for
    /// most: `object-del` is refused then.
    static var mayBeRemovedInUse: Bool { get }

    /// Ends what the object runs, at the end of the process or of the embedded storage. Nobody uses it any more.
    func close() async
}

extension ManagedObject {
    package static var parentTypeName: String { "object" }
    package static var mayBeRemovedInUse: Bool { false }
    package func close() async {}

    /// Every property with its type, `type` first.
    package static var propertyList: [ObjectPropertyInfo] {
        [ObjectPropertyInfo(name: "type", type: "string")] + properties.map { ObjectPropertyInfo(name: $0.name, type: $0.typeName) }
    }

    package var typeName: String { Self.typeName }
    package var propertyList: [ObjectPropertyInfo] { Self.propertyList }
    package var mayBeRemovedInUse: Bool { Self.mayBeRemovedInUse }

    /// - Throws: when there is no such property.
    package func value(of name: String) throws(QMPError) -> JSONValue {
        if name == "type" { return .string(Self.typeName) }
        return try Self.property(name).read(self)
    }

    /// - Throws: when there is no such property, it cannot be changed, or does not take the value; then nothing has changed.
    package func set(_ name: String, to value: JSONValue) throws(QMPError) {
        let write = name == "type" ? nil : try Self.property(name).write
        guard let write else { throw QMPError("Property '\(Self.typeName).\(name)' is not writable") }
        try write(self, value)
    }

    private static func property(_ name: String) throws(QMPError) -> ObjectProperty<Self> {
        guard let property = properties.first(where: { $0.name == name }) else { throw QMPError("Property '\(typeName).\(name)' not found") }
        return property
    }
}

/// One property of one type of objects.
package struct ObjectProperty<Object: AnyObject>: Sendable {
    package let name: String
    /// The name of its type in the object model: "int", "string", or an enumeration's.
    package let typeName: String
    let read: @Sendable (Object) -> JSONValue
    /// Nil for a property that is fixed once the object exists.
    let write: (@Sendable (Object, JSONValue) throws(QMPError) -> Void)?

    /// - Parameters:
    ///   - get: the value at this moment.
    ///   - set: takes a value of the right type, or says what is wrong with it; nil for what cannot be changed.
    package init<Value: QAPIValue>(
        _ name: String, type typeName: String, get: @escaping @Sendable (Object) -> Value,
        set: (@Sendable (Object, Value) throws(QMPError) -> Void)? = nil
    ) {
        self.name = name
        self.typeName = typeName
        read = { get($0).json }
        guard let set else {
            write = nil
            return
        }
        write = { (object: Object, value: JSONValue) throws(QMPError) in
            try set(object, try Value(decoding: value, DecodingContext().member(name)))
        }
    }
}
