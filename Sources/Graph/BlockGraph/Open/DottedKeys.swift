import QAPIRuntime
import StrataBase

/// Objects in which a key such as `file.filename` stands for a member of a member: an old custom that `json:` names keep.
enum DottedKeys {
    /// No definition nests deeper. A key may have thousands of dots, and everything that looks at objects in objects recurses.
    private static let deepest = 128

    static func expand(_ object: JSONObject) throws(BlockError) -> JSONObject { try expand(object, level: 0) }

    /// - Parameter level: how many objects lie around this one.
    private static func expand(_ object: JSONObject, level: Int) throws(BlockError) -> JSONObject {
        var result = JSONObject()
        for member in object.members {
            let keys = member.key.split(separator: ".", omittingEmptySubsequences: false)
            guard level + keys.count <= deepest else { throw BlockError(.invalidArgument, "Parameters are nested too deeply") }
            let value: JSONValue
            if let inner = member.value.object { value = .object(try expand(inner, level: level + keys.count)) } else { value = member.value }
            try insert(value, at: keys[...], of: member.key, into: &result)
        }
        return result
    }

    private static func insert(
        _ value: JSONValue, at keys: ArraySlice<Substring>, of key: String, into object: inout JSONObject
    ) throws(BlockError) {
        guard let first = keys.first.map(String.init) else { return }
        if keys.count == 1 {
            if let existing = object[first]?.object, let added = value.object {
                var merged = existing
                for member in added.members { try insert(member.value, at: [Substring(member.key)], of: key, into: &merged) }
                object[first] = .object(merged)
            } else {
                guard object[first] == nil else { throw BlockError(.invalidArgument, "Option '\(key)' is given twice") }
                object[first] = value
            }
            return
        }
        var child: JSONObject
        switch object[first] {
        case nil: child = JSONObject()
        case .object(let existing)?: child = existing
        default: throw BlockError(.invalidArgument, "Option '\(key)' contradicts '\(first)'")
        }
        try insert(value, at: keys.dropFirst(), of: key, into: &child)
        object[first] = .object(child)
    }
}
