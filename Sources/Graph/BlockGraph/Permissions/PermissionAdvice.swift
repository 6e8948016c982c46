/// What a person can do about a conflict: one sentence for the hint of the error. The message itself is QEMU's, word for word.
enum PermissionAdvice {
    /// - Parameter newNodes: those that are refused; whoever conflicts with one of them was there before.
    static func hint(_ conflict: BlockPermissions, user: GraphState.EdgeRecord, refuser: GraphState.EdgeRecord, newNodes: Set<String>) -> String {
        if case .node(let new) = refuser.owner, newNodes.contains(new) {
            switch user.owner {
            case .node(let old) where !newNodes.contains(old): return "Node '\(old)' was there first: use it in place of '\(new)', or delete it first."
            case .backend(let backend): return "For node '\(new)' to be added: remove \(backend.name) first."
            case .node: break
            }
        }
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
