package import QAPIRuntime

/// What only one format says about an image, as tools print it.
package enum FormatDetails {
    private static let imageMembers = [
        "compat", "compression-type", "lazy-refcounts", "bitmaps", "refcount-bits", "encrypt", "data-file", "data-file-raw", "corrupt",
        "extended-l2", "cid", "parent-cid", "create-type", "extents",
    ]
    private static let encryptionMembers = [
        "ivgen-alg", "detached-header", "hash-alg", "cipher-alg", "uuid", "ivgen-hash-alg", "format", "cipher-mode", "slots", "payload-offset", "master-key-iters",
    ]
    private static let keySlotMembers = ["active", "iters", "key-offset", "stripes"]
    private static let bitmapMembers = ["flags", "name", "granularity"]
    private static let extentMembers = ["compressed", "virtual-size", "filename", "cluster-size", "format"]

    /// The members in the order in which qemu-img prints them, whatever order the schema has.
    package static func ordered(_ object: JSONObject) -> JSONObject {
        // A LUKS disk says of itself what a qcow2 image says of its encryption.
        ordered(object, object["cipher-alg"] == nil ? imageMembers : encryptionMembers)
    }

    private static func ordered(_ object: JSONObject, _ members: [String]) -> JSONObject {
        var ordered = JSONObject()
        for key in members { ordered[key] = object[key].map { orderedInside($0, named: key) } }
        for member in object.members where ordered[member.key] == nil { ordered[member.key] = member.value }
        return ordered
    }

    private static func orderedInside(_ value: JSONValue, named key: String) -> JSONValue {
        let members =
            switch key {
            case "encrypt": encryptionMembers
            case "slots": keySlotMembers
            case "extents": extentMembers
            case "bitmaps": bitmapMembers
            default: [String]()
            }
        return switch value {
        case .object(let object): .object(ordered(object, members))
        case .array(let elements): .array(elements.map { orderedInside($0, named: key) })
        default: value
        }
    }
}
