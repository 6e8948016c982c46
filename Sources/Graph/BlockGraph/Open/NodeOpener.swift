package import IOCore
package import ManagedObjects
package import StorageSchema
package import StrataBase
import Synchronization

/// What a driver opens its children with.
package struct NodeOpener: Sendable {
    /// The options of the node that is being opened.
    package let options: NodeOptions
    /// Its name.
    package let nodeName: String
    /// Whether only the metadata matters (`img info`, `img check`): no data file, no backing file.
    package let opensChain: Bool
    /// The open files that were passed to this process, behind the names `/dev/fdset/N`.
    package let descriptorSets: DescriptorSets
    let registry: DriverRegistry
    /// What the options may refer to by id. A driver keeps an `ObjectUse` of what it needs for as long as it is open.
    package let objects: ObjectRegistry
    /// Where the node sends its events.
    package let events: GraphEvents
    let transaction: OpenTransaction
    let makeName: @Sendable () -> String

    /// Trees deeper than this are refused: a chain of so many layers is either a mistake or an attack.
    static let maximumDepth = 200

    /// A node that exists, or that this opening has made so far.
    package func node(named name: String) -> BlockNode? { transaction.node(named: name) }

    /// Opens or looks up a child.
    /// - Parameters:
    ///   - reference: the name of an existing node, or the options of a new one.
    ///   - name: as in QAPI: "file", "backing".
    package func openChild(_ reference: BlockdevRef, as name: String, role: ChildRole) async throws(BlockError) -> BlockChild {
        let node: BlockNode
        switch reference {
        case .reference(let nodeName):
            guard let found = transaction.node(named: nodeName) else {
                let isOpening = transaction.contents.withLock { $0.opening.contains(nodeName) }
                throw isOpening
                    ? BlockError(.invalidArgument, "Node '\(nodeName)' would be its own descendant")
                    : BlockError(.notFound, "Cannot find device='' nor node-name='\(nodeName)'")
            }
            node = found
        case .definition(let options):
            node = try await open(options, inheriting: self.options, from: nodeName, role: role)
        }
        if options.isActive { try node.refuseInactive(as: name, of: nodeName) }
        return attach(node, as: name, role: role)
    }

    /// Opens the backing file that an image names in itself.
    /// - Parameters:
    ///   - file: as stored in the image; relative names are relative to the image's own directory.
    ///   - format: as stored; nil leads to an error, because guessing a format is how guests read the host's files.
    package func openImplicitBacking(file: String, format: String?, imageFilename: String?) async throws(BlockError) -> BlockChild {
        guard let format else {
            throw BlockError(.invalidArgument, "The image names the backing file '\(file)' but not its format", hint: "Set the format with 'rebase -u -b FILE -F FORMAT', or name the backing file with its driver in the options.")
        }
        let options = try BackingReference.options(file: file, format: format, imageFilename: imageFilename)
        do throws(BlockError) {
            return try await openChild(.definition(options), as: "backing", role: .copyOnWrite)
        } catch {
            throw error.during("Could not open backing file")
        }
    }

    private func attach(_ node: BlockNode, as name: String, role: ChildRole) -> BlockChild {
        let child = BlockChild(name: name, role: role, node: node)
        transaction.contents.withLock { $0.edges.append((child, nodeName)) }
        return child
    }

    /// Opens a node and everything below it.
    func open(_ options: BlockdevOptions, inheriting parent: NodeOptions?, from owner: String? = nil, role: ChildRole) async throws(BlockError) -> BlockNode {
        let driverName = options.driver.rawValue
        let driver = try registry.driver(named: driverName)
        let name = try chooseName(options.nodeName)
        let depth = transaction.contents.withLock { contents in
            contents.opening.append(name)
            return contents.opening.count
        }
        defer { transaction.contents.withLock { _ = $0.opening.popLast() } }
        guard depth <= Self.maximumDepth else {
            throw BlockError(.tooLarge, "Node '\(name)' lies more than \(Self.maximumDepth) layers deep")
        }
        let nodeOptions = NodeOptions(options, inheriting: parent, role: role)
        try nodeOptions.refuseContradictions()
        let opener = NodeOpener(
            options: nodeOptions, nodeName: name, opensChain: opensChain, descriptorSets: descriptorSets, registry: registry, objects: objects,
            events: events,
            transaction: transaction, makeName: makeName)
        Trace.graphNodeOpenBegin(node: name, driver: driverName)
        let instance = try await driver.open(options, opener)
        Trace.graphNodeOpenEnd(node: name, driver: driverName, bytes: instance.length)
        var final = nodeOptions
        if !final.isReadOnly, final.isAutoReadOnly, let cause = await Self.obstacleToWriting(below: instance) {
            final.isReadOnly = true
            final.readOnlyCause = cause
        }
        let node = BlockNode(name: name, driver: instance, options: final, definition: options, inheritsFrom: owner)
        transaction.contents.withLock { $0.nodes.append(node) }
        return node
    }

    /// Why a node with auto-read-only cannot be more than read-only; nil if it can.
    static func obstacleToWriting(below driver: any BlockDriver) async -> String? {
        for child in driver.children where !child.role.isDisjoint(with: [.metadata, .filtered, .data]) {
            if child.node.isReadOnly { return child.node.options.readOnlyCause ?? "its '\(child.name)' child '\(child.node.name)' is read-only" }
            if let obstacle = await child.node.driver.obstacleToWriting() { return obstacle.description }
        }
        return nil
    }

    private func chooseName(_ requested: String?) throws(BlockError) -> String {
        guard let requested else { return makeName() }
        try NodeNames.check(requested)
        let isOpening = transaction.contents.withLock { $0.opening.contains(requested) }
        if transaction.node(named: requested) != nil || isOpening {
            throw BlockError(.alreadyExists, "Duplicate nodes with node-name='\(requested)'")
        }
        return requested
    }
}
