extension CompatPolicy {
    /// The policy of the monitor whose command is running. Set for commands that deal in raw JSON, whose answers nothing else looks through.
    @TaskLocal public static var ofRunningCommand = CompatPolicy()

    /// What `query-qmp-schema` answers under this policy: without the commands, events and members of objects that it hides. As in QEMU values of
    /// enumerations stay, and so do types that nothing refers to any more.
    /// - Parameter introspection: the description of the whole schema.
    public func trimming(_ introspection: JSONValue) -> JSONValue {
        if self == CompatPolicy() { return introspection }
        guard case .array(let entities) = introspection else { return introspection }
        return .array(entities.filter { !isHidden($0) || !["command", "event"].contains($0["meta-type"]) }.map(trimmingMembers))
    }

    private func trimmingMembers(_ entity: JSONValue) -> JSONValue {
        guard case .object(var object) = entity, object["meta-type"] == "object", case .array(let members)? = object["members"] else { return entity }
        object["members"] = .array(members.filter { !isHidden($0) })
        return .object(object)
    }

    private func isHidden(_ described: JSONValue) -> Bool {
        hides(SpecialFeatures(names: described["features"]?.array?.compactMap(\.string) ?? []))
    }
}
