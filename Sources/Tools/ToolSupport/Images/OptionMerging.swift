package import QAPIRuntime

extension JSONObject {
    /// Adds the members of another object, which win; objects in both are merged in the same way.
    package mutating func merge(_ other: JSONObject) {
        for member in other.members {
            guard var inner = self[member.key]?.object, let outer = member.value.object else {
                self[member.key] = member.value
                continue
            }
            inner.merge(outer)
            self[member.key] = .object(inner)
        }
    }
}
