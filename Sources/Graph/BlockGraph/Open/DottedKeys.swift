import QAPIRuntime
import StrataBase

/// Objects in which a key such as `file.filename` stands for a member of a member: an old custom that `json:` names keep.
enum DottedKeys {
    static func expand(_ object: JSONObject) throws(BlockError) -> JSONObject {
        var result = JSONObject()
        for member in object.members {
            let value: JSONValue
            if let inner = member.value.object { value = .object(try expand(inner)) } else { value = member.value }
            try insert(value, at: member.key.split(separator: ".", omittingEmptySubsequences: false)[...], of: member.key, into: &result)
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
