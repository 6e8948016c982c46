package import QAPIRuntime

/// What only one format says about an image, as tools print it.
package enum FormatDetails {
    private static let memberOrder = [
        "active", "iters", "key-offset", "stripes",
        "ivgen-alg", "detached-header", "hash-alg", "cipher-alg", "uuid", "ivgen-hash-alg", "format", "cipher-mode", "slots", "payload-offset", "master-key-iters",
        "compat", "compression-type", "lazy-refcounts", "bitmaps", "refcount-bits", "encrypt", "data-file", "data-file-raw", "corrupt",
        "extended-l2", "cid", "parent-cid", "create-type", "extents", "compressed", "virtual-size", "filename", "cluster-size", "format",
    ]

    /// The members in the order in which qemu-img prints them, whatever order the schema has.
    package static func ordered(_ object: JSONObject) -> JSONObject {
        var ordered = JSONObject()
        for key in memberOrder { ordered[key] = object[key].map(orderedInside) }
        for member in object.members where ordered[member.key] == nil { ordered[member.key] = member.value }
        if let extents = ordered["extents"]?.array { ordered["extents"] = .array(extents.map { $0.object.map { .object(Self.ordered($0)) } ?? $0 }) }
        return ordered
    }

    private static func orderedInside(_ value: JSONValue) -> JSONValue {
        switch value {
        case .object(let object): .object(ordered(object))
        case .array(let elements): .array(elements.map(orderedInside))
        default: value
        }
    }
}
