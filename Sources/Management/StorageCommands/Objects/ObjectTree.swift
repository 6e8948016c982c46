import CharacterDevices
import ManagedObjects
import QAPIRuntime
import StorageSchema

/// The objects of a service as the tree that `qom-list` and its relatives walk through: containers, and objects in them.
struct ObjectTree {
    indirect enum Node {
        case container([(name: String, node: Node)])
        case object(any ManagedObject)

        var typeName: String {
            switch self {
            case .container: "container"
            case .object(let object): object.typeName
            }
        }

        /// The nodes below this one.
        var children: [(name: String, node: Node)] {
            switch self {
            case .container(let children): children
            case .object: []
            }
        }
    }

    let root: Node

    init(objects: [(id: String, object: any ManagedObject)], chardevs: [any CharacterDevice]) {
        func container(_ members: [(id: String, object: any ManagedObject)]) -> Node {
            .container(members.map { (name: $0.id, node: Node.object($0.object)) })
        }
        root = .container([
            (name: "backend", node: .container([])),
            (name: "objects", node: container(objects)),
            (name: "chardevs", node: container(chardevs.map { (id: $0.label, object: $0) })),
        ])
    }

    /// What a path names: from the root when it begins with a slash; otherwise whatever single thing has a path that ends so.
    /// - Returns: the node and its whole path.
    func resolve(_ path: String) throws(QMPError) -> (node: Node, path: String) {
        let parts = path.split(separator: "/").map(String.init)
        if path.hasPrefix("/") {
            guard let node = Self.descend(from: root, parts[...]) else { throw Self.notFound(path) }
            return (node, "/" + parts.joined(separator: "/"))
        }
        let matches = Self.matches(below: root, at: "", parts[...])
        if matches.count > 1 { throw QMPError("Path '\(path)' is ambiguous") }
        guard let match = matches.first else { throw Self.notFound(path) }
        return match
    }

    private static func notFound(_ path: String) -> QMPError { QMPError("Device '\(path)' not found", class: .deviceNotFound) }

    private static func descend(from node: Node, _ parts: ArraySlice<String>) -> Node? {
        guard let first = parts.first else { return node }
        guard let child = node.children.first(where: { $0.name == first })?.node else { return nil }
        return descend(from: child, parts.dropFirst())
    }

    private static func matches(below node: Node, at path: String, _ parts: ArraySlice<String>) -> [(node: Node, path: String)] {
        var found: [(node: Node, path: String)] = []
        if let match = descend(from: node, parts) { found.append((match, path + "/" + parts.joined(separator: "/"))) }
        for (name, child) in node.children { found += matches(below: child, at: path + "/" + name, parts) }
        return found
    }
}

extension ObjectTree.Node {
    /// The properties, and below them the children as properties.
    var properties: [ObjectPropertyInfo] {
        switch self {
        case .container(let children):
            [ObjectPropertyInfo(name: "type", type: "string")]
                + children.map { ObjectPropertyInfo(name: $0.name, type: "child<\($0.node.typeName)>") }
        case .object(let object): object.propertyList
        }
    }

    /// - Parameter path: of this node.
    func value(of property: String, path: String) throws(QMPError) -> JSONValue {
        switch self {
        case .object(let object): return try object.value(of: property)
        case .container(let children):
            if property == "type" { return "container" }
            guard children.contains(where: { $0.name == property }) else { throw QMPError("Property 'container.\(property)' not found") }
            return .string(path == "/" ? "/\(property)" : "\(path)/\(property)")
        }
    }

    func set(_ property: String, to value: JSONValue) throws(QMPError) {
        switch self {
        case .object(let object): try object.set(property, to: value)
        case .container(let children):
            guard property == "type" || children.contains(where: { $0.name == property }) else {
                throw QMPError("Property 'container.\(property)' not found")
            }
            throw QMPError("Property 'container.\(property)' is not writable")
        }
    }
}
