import Glibc
package import IOCore
package import ManagedObjects
import QAPIRuntime
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

    /// Whether the format of the root was guessed.
    var isProbed = false
    /// How many backing files lie above this node, and how many other nodes above it within its own layer.
    var layersAbove = 0
    var nodesAbove = 0

    /// Chains with more layers are refused: nobody has one, and each layer holds a file open.
    package static let maximumLayers = 16_384
    /// Filters, formats and files in one layer. Requests go through them on the thread's stack.
    package static let maximumNodesInLayer = 100

    /// A node that exists, or that this opening has made so far.
    package func node(named name: String) -> BlockNode? { transaction.node(named: name) }

    /// Opens or looks up a child.
    /// - Parameters:
    ///   - reference: the name of an existing node, or the options of a new one.
    ///   - name: as in QAPI: "file", "backing".
    package func openChild(_ reference: BlockdevRef, as name: String, role: ChildRole) async throws(BlockError) -> BlockChild {
        guard role.contains(.copyOnWrite) else { return try attach(try await resolve(reference, role), as: name, role: role) }
        do throws(BlockError) {
            return try attach(try await resolve(reference, role), as: name, role: role)
        } catch {
            throw Self.inBackingFile(error)
        }
    }

    /// Says once, however deep in a chain it happened, that a backing file is meant.
    private static func inBackingFile(_ error: BlockError) -> BlockError {
        let step = "Could not open backing file"
        return error.steps.first == step ? error : error.during(step)
    }

    private func resolve(_ reference: BlockdevRef, _ role: ChildRole) async throws(BlockError) -> BlockNode {
        switch reference {
        case .reference(let nodeName):
            guard let found = transaction.node(named: nodeName) else {
                let isOpening = transaction.contents.withLock { $0.opening.contains(nodeName) }
                throw isOpening
                    ? BlockError(.invalidArgument, "Node '\(nodeName)' would be its own descendant")
                    : BlockError(.notFound, "Cannot find device='\(nodeName)' nor node-name='\(nodeName)'")
            }
            let isBacking = role.contains(.copyOnWrite)
            try Self.checkDepth(
                layers: layersAbove + (isBacking ? 1 : 0) + found.height, nodes: isBacking ? found.stackHeight : nodesAbove + 1 + found.stackHeight, at: nodeName)
            return found
        case .definition(let options): return try await open(options, inheriting: self.options, from: nodeName, role: role)
        }
    }

    private static func checkDepth(layers: Int, nodes: Int, at name: String) throws(BlockError) {
        if layers > maximumLayers { throw BlockError(.tooLarge, "Node '\(name)' lies below more than \(maximumLayers) layers of backing files") }
        if nodes > maximumNodesInLayer { throw BlockError(.tooLarge, "Node '\(name)' lies below more than \(maximumNodesInLayer) other nodes") }
    }

    /// Opens the backing file that an image names in itself.
    /// - Parameters:
    ///   - file: as stored in the image; relative names are relative to the image's own directory.
    ///   - format: as stored; nil leads to an error, because guessing a format is how guests read the host's files.
    package func openImplicitBacking(file: String, format: String?, imageFilename: String?) async throws(BlockError) -> BlockChild {
        guard let format else {
            throw BlockError(.invalidArgument, "The image names the backing file '\(file)' but not its format", hint: "Set the format with 'rebase -u -b FILE -F FORMAT', or name the backing file with its driver in the options.")
        }
        do throws(BlockError) {
            let options = try BackingReference.options(file: file, format: format, imageFilename: imageFilename)
            let name = BackingReference.resolve(file, relativeTo: imageFilename)
            // The same file in the same format below itself would go on for ever.
            let key = "\(format) \(HostFile.identity(ofFileNamed: name) ?? name)"
            let isNew = transaction.contents.withLock { $0.openingImages.insert(key).inserted }
            guard isNew else { throw BlockError(.invalidArgument, "Backing file '\(name)' creates an infinite loop.") }
            defer { transaction.contents.withLock { _ = $0.openingImages.remove(key) } }
            let node = try await open(options, inheriting: self.options, from: nodeName, role: .copyOnWrite)
            return try attach(node, as: "backing", role: .copyOnWrite, expectedFilename: node.descriptionWhenOpened.filename)
        } catch {
            throw Self.inBackingFile(error)
        }
    }

    /// Opens the file for guest data that an image names in itself: plain bytes, whatever they look like.
    /// - Parameters:
    ///   - file: as stored in the image; relative names are relative to the image's own directory.
    ///   - imageFilename: the host file of the image.
    package func openImplicitDataFile(_ file: String, imageFilename: String?) async throws(BlockError) -> BlockChild {
        let options = BackingReference.dataFileOptions(file, imageFilename: imageFilename)
        let node = try await open(options, inheriting: self.options, from: nodeName, role: .data)
        return try attach(node, as: "data-file", role: .data, expectedFilename: node.descriptionWhenOpened.filename)
    }

    private func attach(_ node: BlockNode, as name: String, role: ChildRole, expectedFilename: String? = nil) throws(BlockError) -> BlockChild {
        if options.isActive { try node.refuseInactive(as: name, of: nodeName) }
        let child = BlockChild(name: name, role: role, node: node, expectedFilename: expectedFilename)
        transaction.contents.withLock { $0.edges.append((child, nodeName)) }
        return child
    }

    /// Opens a node and everything below it.
    func open(_ options: BlockdevOptions, inheriting parent: NodeOptions?, from owner: String? = nil, role: ChildRole) async throws(BlockError) -> BlockNode {
        let driverName = options.driver.rawValue
        let driver = try registry.driver(named: driverName)
        let name = try chooseName(options.nodeName)
        var nodeOptions = NodeOptions(options, inheriting: parent, role: role)
        try nodeOptions.refuseContradictions()
        if driver.isReadOnly { try nodeOptions.settle(forReadOnlyDriver: driverName) }
        var opener = NodeOpener(
            options: nodeOptions, nodeName: name, opensChain: opensChain,
            descriptorSets: descriptorSets, registry: registry, objects: objects, events: events, transaction: transaction, makeName: makeName)
        if parent != nil {
            opener.layersAbove = layersAbove + (role.contains(.copyOnWrite) ? 1 : 0)
            opener.nodesAbove = role.contains(.copyOnWrite) ? 0 : nodesAbove + 1
        }
        try Self.checkDepth(layers: opener.layersAbove, nodes: opener.nodesAbove, at: name)
        transaction.contents.withLock { $0.opening.append(name) }
        defer { transaction.contents.withLock { _ = $0.opening.popLast() } }
        Trace.graphNodeOpenBegin(node: name, driver: driverName)
        let instance = try await driver.open(options, opener)
        Trace.graphNodeOpenEnd(node: name, driver: driverName, bytes: instance.length)
        var final = opener.options
        final.isAlone = !opensChain
        final.isProbedRaw = isProbed && parent == nil && driverName == "raw"
        if !final.isReadOnly, final.isAutoReadOnly, let cause = await Self.obstacleToWriting(below: instance) {
            final.isReadOnly = true
            final.readOnlyCause = cause
        }
        let node = BlockNode(
            name: name, driver: instance, options: final, definition: options, inheritsFrom: owner, identity: IdentifyingOptions.of(driverName, options.json))
        transaction.contents.withLock { $0.nodes.append(node) }
        // Whatever the options, the image or the server say; the transaction closes the node.
        guard instance.length <= BlockLimits.maximumLength else { throw BlockError(errno: EFBIG, "Could not refresh total sector count") }
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

    func chooseName(_ requested: String?) throws(BlockError) -> String {
        guard let requested else { return makeName() }
        try NodeNames.check(requested)
        let isOpening = transaction.contents.withLock { $0.opening.contains(requested) }
        if transaction.node(named: requested) != nil || isOpening {
            throw BlockError(.alreadyExists, "Duplicate nodes with node-name='\(requested)'")
        }
        return requested
    }
}
