import IOCore
import QAPIRuntime
package import StorageSchema
package import StrataBase

/// The nodes that one blockdev-reopen changes, and how: those that were named, and below them those that were opened inside their parents'
/// definitions and take options from them.
///
/// Filled from the definitions, then put into a `GraphChange`. Lives for one change.
final class ReopenQueue {
    private struct Entry {
        let node: BlockNode
        let definition: BlockdevOptions
        var options: NodeOptions
    }

    private let change: GraphChange
    private var entries: [Entry] = []
    private var queued: Set<String> = []
    /// Named by the user: what their parents would hand down does not count.
    private var named: Set<String> = []
    /// Drivers that have staged something.
    private var staged: [any Reopening] = []
    /// Nodes that edges will lead to, by parent and by the child's name.
    private var replaced: [String: [String: BlockChild]] = [:]

    init(_ change: GraphChange) { self.change = change }

    // MARK: Filling

    func fill(_ definitions: [BlockdevOptions]) throws(BlockError) {
        for definition in definitions {
            guard let name = definition.nodeName else { throw BlockError(.invalidArgument, "node-name not specified") }
            guard change.state.nodes[name] != nil else { throw BlockError(.notFound, "Failed to find node with node-name='\(name)'") }
            guard named.insert(name).inserted else { throw BlockError(.invalidArgument, "Node '\(name)' is listed twice") }
        }
        for definition in definitions {
            guard let name = definition.nodeName, let node = change.state.nodes[name]?.node else { continue }
            try add(node, definition, inheriting: nil, role: [], keepsWhatIsNotSaid: false)
        }
    }

    /// One node with what it keeps its own data in, read-only or not; everything else about them stays.
    func fill(_ name: String, isReadOnly: Bool) throws(BlockError) {
        guard let record = change.state.nodes[name] else { return }
        var options = record.options
        (options.isReadOnly, options.readOnlyCause) = (isReadOnly, nil)
        named.insert(name)
        queued.insert(name)
        guard let definition = record.node.definition else { throw Self.cannotReopen(record.node) }
        entries.append(Entry(node: record.node, definition: definition, options: options))
        for child in record.node.children where !child.role.contains(.copyOnWrite) {
            if let edge = change.state.child(named: child.name, of: name) { try follow(edge, record.node, options) }
        }
    }

    private static func cannotReopen(_ node: BlockNode) -> BlockError {
        BlockError(
            .unsupported,
            "Block \(node.kind == .protocol ? "protocol" : "format") '\(node.formatName)' used by node '\(node.name)' does not support reopening files")
    }

    /// One node takes other options, and what inherits from it follows. What it inherits itself stays.
    /// - Parameter isReadOnly: whatever the definition says; nil goes by the definition.
    func fill(_ name: String, _ definition: BlockdevOptions, isReadOnly: Bool? = nil) throws(BlockError) {
        let node = try change.record(name).node
        var (parent, role) = (NodeOptions?.none, ChildRole())
        if let owner = node.inheritsFrom, let above = change.state.nodes[owner],
            let edge = above.children.lazy.compactMap({ self.change.state.edges[$0] }).first(where: { $0.target == name })
        {
            (parent, role) = (above.options, edge.child.role)
        }
        try add(node, definition, inheriting: parent, role: role, keepsWhatIsNotSaid: true, isReadOnly: isReadOnly)
    }

    /// - Parameter keepsWhatIsNotSaid: the definition is the one that the node has already, so children it does not speak of stay.
    private func add(
        _ node: BlockNode, _ definition: BlockdevOptions, inheriting parent: NodeOptions?, role: ChildRole, keepsWhatIsNotSaid: Bool, isReadOnly: Bool? = nil
    ) throws(BlockError) {
        guard queued.insert(node.name).inserted else { return }
        try change.state.checkNotBlocked(.reopen, on: node.name)
        guard let driver = node.driver as? any Reopening else { throw Self.cannotReopen(node) }
        let old = node.definition?.json.object ?? JSONObject()
        let new = definition.json.object ?? JSONObject()
        let children = childOptions(of: node)
        try OptionComparison.refuseChanges(
            from: old, to: new, children: children, own: type(of: driver).changeableOptions, isActive: node.options.isActive)
        var options = NodeOptions(definition, inheriting: parent, role: role)
        if let isReadOnly { options.isReadOnly = isReadOnly }
        // What no definition says stays: a guess is no better for being opened again.
        (options.isActive, options.isAlone, options.isProbedRaw) = (node.options.isActive, node.options.isAlone, node.options.isProbedRaw)
        try options.refuseContradictions()
        entries.append(Entry(node: node, definition: definition, options: options))
        for name in children.sorted() { try addChild(name, of: node, new[name], options, keepsWhatIsNotSaid) }
    }

    /// The options of a node that stand for children: those that it has, and the backing file that it could have.
    private func childOptions(of node: BlockNode) -> Set<String> {
        // The members of a list count as the list: `children.0`.
        var names = Set(node.children.map { String($0.name.prefix { $0 != "." }) })
        if type(of: node.driver).supportsBacking { names.insert("backing") }
        return names
    }

    private func addChild(_ name: String, of node: BlockNode, _ value: JSONValue?, _ options: NodeOptions, _ keeps: Bool) throws(BlockError) {
        let edge = change.state.child(named: name, of: node.name)
        if keeps {
            // The children are those that it has by now, whatever the definition said when it was opened.
            if let edge { try follow(edge, node, options) }
            for member in members(of: name, node) { try follow(member, node, options) }
            return
        }
        switch value {
        case nil:
            // What an image names by itself would be opened in its place: the user has to say which of the two is meant.
            if name == "backing", edge != nil || (node.driver as? any Reopening)?.namesBackingFile == true {
                throw BlockError(.invalidArgument, "backing is missing for '\(node.name)'")
            }
            if let edge { try follow(edge, node, options) }
            for member in members(of: name, node) { try follow(member, node, options) }
        case .null:
            guard let edge else { return }
            guard name == "backing" else { throw OptionComparison.refusal(name) }
            try change.detach(edge.child.id)
        case .string(let target):
            if let edge, edge.target == target { return try follow(edge, node, options) }
            // A job's filter stays where it is: who names the node below it means what he has.
            if let edge, isBelowJobFilters(target, from: edge.target) { return }
            try lead(name, of: node, to: target, edge)
        case .array(let values):
            let members = members(of: name, node)
            // Nobody comes or goes by being listed.
            guard members.count == values.count else { throw OptionComparison.refusal(name) }
            for (member, value) in zip(members, values) { try addChild(member.child.name, of: node, value, options, keeps) }
        default: try redefine(name, of: node, value ?? .null, edge, options)
        }
    }

    /// The children that a list stands for, in its order: `children.0` and so on.
    private func members(of list: String, _ node: BlockNode) -> [GraphState.EdgeRecord] {
        node.children.compactMap { $0.name.hasPrefix(list + ".") ? change.state.child(named: $0.name, of: node.name) : nil }
    }

    /// Whether only filters that jobs have made, which no definition describes, lie between `start` and the node called `name`.
    private func isBelowJobFilters(_ name: String, from start: String) -> Bool {
        var current = start
        while let record = change.state.nodes[current], record.node.definition == nil,
            let below = record.children.lazy.compactMap({ self.change.state.edges[$0] }).first(where: { $0.child.role.contains(.filtered) })
        {
            if below.target == name { return true }
            current = below.target
        }
        return false
    }

    /// A child that stays takes over what has changed in what it inherits.
    private func follow(_ edge: GraphState.EdgeRecord, _ parent: BlockNode, _ options: NodeOptions) throws(BlockError) {
        guard let child = change.state.nodes[edge.target]?.node, child.inheritsFrom == parent.name, let definition = child.definition,
            !named.contains(child.name)
        else { return }
        try add(child, definition, inheriting: options, role: edge.child.role, keepsWhatIsNotSaid: true)
    }

    private func lead(_ name: String, of node: BlockNode, to target: String, _ edge: GraphState.EdgeRecord?) throws(BlockError) {
        guard name == "file" || name == "backing" else { throw OptionComparison.refusal(name) }
        guard let new = change.state.nodes[target]?.node else {
            throw BlockError(.notFound, "Cannot find device='' nor node-name='\(target)'")
        }
        if let edge {
            try change.retarget(edge.child.id, to: target)
            // Told last, as a loop and a link that must stay say more.
            try change.state.checkNotBlocked(.changeChildren, on: node.name)
        } else {
            try change.attach(target, to: node.name, as: name, role: .copyOnWrite)
        }
        replaced[node.name, default: [:]][name] = BlockChild(name: name, role: edge?.child.role ?? .copyOnWrite, node: new)
    }

    /// A definition where a child is: the child is reopened with it, if it has come into being inside the parent's definition.
    private func redefine(
        _ name: String, of node: BlockNode, _ value: JSONValue, _ edge: GraphState.EdgeRecord?, _ options: NodeOptions
    ) throws(BlockError) {
        guard let edge, let child = change.state.nodes[edge.target]?.node, child.inheritsFrom == node.name else {
            throw OptionComparison.refusal("\(name).driver")
        }
        let definition: BlockdevOptions
        do throws(QMPError) { definition = try BlockdevOptions(decoding: value) } catch { throw BlockError(.invalidArgument, error.message) }
        if let wanted = definition.nodeName, wanted != child.name { throw OptionComparison.refusal("node-name") }
        if named.contains(child.name) { throw BlockError(.invalidArgument, "Node '\(child.name)' is listed twice") }
        try add(child, definition, inheriting: options, role: edge.child.role, keepsWhatIsNotSaid: false)
    }

    // MARK: Putting it into the change

    /// Lets every driver take its options in, children first: what a parent with auto-read-only may do depends on them.
    func stage() async throws(BlockError) {
        let order = change.state.topologicalOrder(from: entries.map(\.node.name))
        let position = Dictionary(uniqueKeysWithValues: order.enumerated().map { ($1, $0) })
        for entry in entries.sorted(by: { position[$0.node.name, default: 0] > position[$1.node.name, default: 0] }) {
            guard let driver = entry.node.driver as? any Reopening else { continue }
            var options = entry.options
            if type(of: driver).isReadOnly { try options.settle(forReadOnlyDriver: entry.node.formatName) }
            if !options.isReadOnly, options.isAutoReadOnly, let cause = await obstacleToWriting(below: entry.node.name) {
                options.isReadOnly = true
                options.readOnlyCause = cause
            }
            staged.append(driver)
            try driver.stageReopen(
                ReopenRequest(options: entry.definition, nodeOptions: options, replaced: replaced[entry.node.name] ?? [:]))
            change.setOptions(options, of: entry.node.name)
            change.add(Participant(entry.node, driver, entry.definition))
        }
    }

    /// As `NodeOpener.obstacleToWriting`, in the graph as it will be.
    private func obstacleToWriting(below name: String) async -> String? {
        for id in change.state.nodes[name]?.children ?? [] {
            guard let edge = change.state.edges[id], let record = change.state.nodes[edge.target],
                !edge.child.role.isDisjoint(with: [.metadata, .filtered, .data])
            else { continue }
            if record.options.isReadOnly { return record.options.readOnlyCause ?? "its '\(edge.child.name)' child '\(edge.target)' is read-only" }
            if let obstacle = await record.node.driver.obstacleToWriting() { return obstacle.description }
        }
        return nil
    }

    /// For a change that does not come about.
    func abort() async { for driver in staged.reversed() { await driver.abortReopen() } }

    /// One node's part in the change.
    private final class Participant: ChangeParticipant {
        private let node: BlockNode
        private let driver: any Reopening
        private let definition: BlockdevOptions

        init(_ node: BlockNode, _ driver: any Reopening, _ definition: BlockdevOptions) {
            self.node = node
            self.driver = driver
            self.definition = definition
        }

        func prepare() async throws(BlockError) { try await driver.prepareReopen() }

        func commit() async {
            await driver.commitReopen()
            node.redefine(definition)
        }

        func abort() async {}  // the queue aborts everybody who has staged, prepared or not
    }
}

extension BlockGraph {
    /// Gives open nodes other options, all of them or none (blockdev-reopen). Options that are not said return to their defaults.
    /// - Throws: `.notFound`; `.invalidArgument` naming the option that cannot change; `.permissionConflict`; what a driver says.
    package func reopen(_ definitions: [BlockdevOptions]) async throws(BlockError) {
        try await reopen { queue throws(BlockError) in try queue.fill(definitions) }
    }

    /// Makes a node, with the nodes inside its definition that it keeps its data in, writable or read-only.
    func reopen(_ name: String, isReadOnly: Bool) async throws(BlockError) {
        try await reopen { queue throws(BlockError) in try queue.fill(name, isReadOnly: isReadOnly) }
    }

    /// Gives a node other options, and makes it read-only or not, whatever they say.
    func reopen(_ name: String, _ definition: BlockdevOptions, isReadOnly: Bool) async throws(BlockError) {
        try await reopen { queue throws(BlockError) in try queue.fill(name, definition, isReadOnly: isReadOnly) }
    }

    private func reopen(_ fill: (ReopenQueue) throws(BlockError) -> Void) async throws(BlockError) {
        try await changes.withLock { () async throws(BlockError) in
            var queue: ReopenQueue?
            do throws(BlockError) {
                try await changeLocked { change async throws(BlockError) in
                    let filling = ReopenQueue(change)
                    queue = filling
                    try fill(filling)
                    try await filling.stage()
                }
            } catch {
                await queue?.abort()
                throw error
            }
        }
    }
}
