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
        for child in node.children {
            // A list of children that is not mentioned stays.
            let key = String(child.name.prefix { $0 != "." })
            options[key] = key == child.name ? .string(child.node.name) : nil
        }
        if node.backingChild == nil, type(of: node.driver).supportsBacking { options["backing"] = .null }
        for member in self.options.members { options[member.key] = member.value }
        do throws(QMPError) {
            return try BlockdevOptions(decoding: .object(options), mode: .keyValue)
        } catch {
            throw BlockError(.invalidArgument, Self.explain(error))
        }
    }

    /// An option that the driver does not know cannot be changed either.
    private static func explain(_ error: QMPError) -> String {
        let (start, end) = ("Parameter '", "' is unexpected")
        guard error.message.hasPrefix(start), error.message.hasSuffix(end) else { return error.message }
        return "Cannot change the option '\(error.message.dropFirst(start.utf8.count).dropLast(end.utf8.count))'"
    }
}
