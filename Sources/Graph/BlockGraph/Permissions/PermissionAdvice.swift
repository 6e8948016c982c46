/// What a person can do about a conflict: one sentence for the hint of the error. The message itself is QEMU's, word for word.
enum PermissionAdvice {
    static func hint(_ conflict: BlockPermissions, user: GraphState.EdgeRecord, refuser: GraphState.EdgeRecord) -> String {
        let wish = conflict == .resize ? "change the size" : conflict.contains(.write) ? "write" : "read"
        let way =
            switch refuser.owner {
            case .node(let name) where refuser.child.role.contains(.copyOnWrite):
                "detach it from its overlay '\(name)' first, or write through '\(name)'"
            case .node(let name) where refuser.child.role.contains(.metadata): "use '\(name)', which keeps its own data in there, or delete '\(name)' first"
            case .node(let name): "use '\(name)' instead, or delete it first"
            case .backend(let backend): "remove \(backend.name) first, or make it share what it forbids"
            }
        let other =
            switch user.owner {
            case .node(let name): "node '\(name)'"
            case .backend(let backend): backend.name
            }
        return "For \(other) to \(wish): \(way)."
    }

    /// For somebody who wants to remove a node: who holds it, and what to do about that.
    static func hint(user: GraphState.EdgeRecord, _ state: GraphState) -> String {
        let way =
            switch user.owner {
            case .node(let name): "delete '\(name)' first, or take '\(user.target)' from it"
            case .backend(let backend): "remove \(backend.name) first"
            }
        return "It is held by \(state.describe(user)): \(way)."
    }
}
