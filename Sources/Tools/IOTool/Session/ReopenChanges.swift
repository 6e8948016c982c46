import BlockGraph
import QAPIRuntime
import StorageSchema
import StrataBase
import ToolSupport

/// What `reopen` is to change.
struct ReopenChanges {
    var isReadOnly: Bool?
    var cache: CacheMode?
    /// Options of the block driver, by name.
    var options = JSONObject()

    /// - Throws: `.reported` for changes that are asked for in two ways.
    func checkContradictions() throws(CommandFailure) {
        if isReadOnly != nil, options["read-only"] != nil { throw .reported("Cannot set both -r/-w and 'read-only'") }
        if cache != nil, options["cache"] != nil { throw .reported("Cannot set both -c and the cache options") }
    }

    /// The options that the node is reopened with: those that it has, with what is to change. Its children stay what they are.
    func definition(of node: BlockNode, isReadOnly: Bool, cache: CacheMode) throws(BlockError) -> BlockdevOptions {
        // Said before anything else, since options mean what their driver makes of them.
        if let driver = self.options["driver"], driver != .string(node.formatName) {
            throw BlockError(.invalidArgument, "Cannot change the option 'driver'")
        }
        var options = node.definition?.json.object ?? JSONObject()
        options["node-name"] = .string(node.name)
        if self.isReadOnly != nil { options["read-only"] = .bool(isReadOnly) }
        if self.cache != nil { options["cache"] = ["direct": .bool(cache.direct), "no-flush": .bool(cache.noFlush)] }
        options = try LegacyOptions.resolved(in: try Self.changed(options, of: node, by: self.options))
        do throws(QMPError) {
            return try BlockdevOptions(decoding: .object(options), mode: .keyValue)
        } catch {
            throw BlockError(.invalidArgument, Self.explain(error))
        }
    }

    /// - Parameter options: those that the node has.
    private static func changed(_ options: JSONObject, of node: BlockNode, by changes: JSONObject) throws(BlockError) -> JSONObject {
        var options = options
        for child in node.children {
            // A list of children that is not mentioned stays.
            let key = String(child.name.prefix { $0 != "." })
            options[key] = key == child.name ? .string(child.node.name) : nil
        }
        if node.backingChild == nil, type(of: node.driver).supportsBacking { options["backing"] = .null }
        var changes = changes
        for child in node.children {
            // `backing.OPTION` is about the child that is there.
            guard let inner = changes[child.name]?.object else { continue }
            if let driver = inner["driver"], driver != .string(child.node.formatName) {
                throw BlockError(.invalidArgument, "Cannot change the option 'driver'")
            }
            var own = child.node.definition?.json.object ?? JSONObject()
            own["node-name"] = .string(child.node.name)
            options[child.name] = .object(try changed(own, of: child.node, by: inner))
            changes[child.name] = nil
        }
        // The text of no name would be taken for none of the kind, and detach the backing file.
        if changes["backing"] == "" { throw BlockError(.notFound, "Cannot find device='' nor node-name=''") }
        options.merge(changes)
        return options
    }

    /// An option that the driver does not know cannot be changed either.
    private static func explain(_ error: QMPError) -> String {
        let (start, end) = ("Parameter '", "' is unexpected")
        guard error.message.hasPrefix(start), error.message.hasSuffix(end) else { return error.message }
        return "Cannot change the option '\(error.message.dropFirst(start.utf8.count).dropLast(end.utf8.count))'"
    }
}
