package import IOCore
package import StrataBase

// What users do to a graph beyond adding and removing nodes. Each is one change; errors are worded as QEMU words them.

extension BlockGraph {
    /// Puts an overlay on top of a node (blockdev-snapshot).
    /// - Parameter open: makes the overlay as part of the change; nil for one that exists already.
    /// - Returns: what `undo` needs.
    @discardableResult
    package func takeSnapshot(
        of name: String, overlay: String, opening open: ((GraphChange) async throws(BlockError) -> Void)? = nil
    ) async throws(BlockError) -> TakenSnapshot {
        try await change { change async throws(BlockError) -> TakenSnapshot in
            try change.checkSnapshot(of: name)
            let before = change.state
            try await open?(change)
            guard change.state.nodes[overlay] != nil else {
                throw BlockError(.notFound, "Cannot find device='\(overlay)' nor node-name='\(overlay)'")
            }
            try change.takeSnapshot(of: name, overlay: overlay)
            let moved = (before.nodes[name]?.parents ?? []).filter { change.state.edges[$0]?.target == overlay }
            let options = change.state.nodes.compactMapValues { record in
                before.nodes[record.node.name].flatMap { $0.options == record.options ? nil : $0.options }
            }
            return TakenSnapshot(node: name, overlay: overlay, moved: moved, options: options)
        }
    }

    /// Takes an overlay off again: everybody who was moved to it uses the node below as before.
    package func undo(_ snapshot: TakenSnapshot) async throws(BlockError) {
        try await change { change async throws(BlockError) in
            if let backing = change.state.child(named: "backing", of: snapshot.overlay) { try change.detach(backing.child.id) }
            for id in snapshot.moved where change.state.edges[id]?.target == snapshot.overlay { try change.retarget(id, to: snapshot.node) }
            for (name, options) in snapshot.options { change.setOptions(options, of: name) }
        }
    }

    /// Adds a node to the children of another, or takes a child away (x-blockdev-change).
    package func changeMembers(of parent: String, removing child: String?, adding node: String?) async throws(BlockError) {
        try await change { change async throws(BlockError) in
            let record = try change.record(parent)
            try change.state.checkNotBlocked(.changeChildren, on: parent)
            switch (child, node) {
            case (nil, nil): throw BlockError(.invalidArgument, "Either child or node must be specified")
            case (.some, .some): throw BlockError(.invalidArgument, "The parameters child and node are in conflict")
            case (let child?, nil):
                guard let edge = change.state.child(named: child, of: parent) else {
                    throw BlockError(.notFound, "Node '\(parent)' does not have child '\(child)'")
                }
                guard let driver = record.node.driver as? any MemberHolding else {
                    throw BlockError(.unsupported, "The node \(parent) does not support removing a child")
                }
                try driver.checkRemoval(ofMember: child)
                try change.detach(edge.child.id)
            case (nil, let node?):
                guard let other = change.state.nodes[node] else { throw BlockError(.notFound, "Node '\(node)' not found") }
                guard let driver = record.node.driver as? any MemberHolding else {
                    throw BlockError(.unsupported, "The node \(parent) does not support adding a child")
                }
                if !other.parents.isEmpty { throw BlockError(.permissionConflict, "The node \(node) already has a parent") }
                let member = try driver.newMember()
                try change.attach(node, to: parent, as: member.name, role: member.role)
            }
        }
    }

    /// Changes the size of a node (block_resize).
    /// - Throws: `.permissionConflict` when somebody relies on the size, what the driver says.
    package func resize(_ name: String, to byteCount: Int) async throws(BlockError) {
        // Looked at in the change that takes hold of the node: whoever forbids it comes before or finds it in use.
        let backend = try await change { change throws(BlockError) -> BlockBackend in
            guard let node = change.state.nodes[name]?.node else { throw BlockError(.notFound, "Cannot find device='' nor node-name='\(name)'") }
            try change.state.checkNotBlocked(.resize, on: name)
            if node.isReadOnly { throw node.readOnlyError }
            return change.makeBackend(named: "block_resize", on: node, PermissionGrant(used: .resize, shared: .all))
        }
        let outcome: Result<Void, BlockError>
        do throws(BlockError) {
            let drain = await beginDrain(of: [name])
            defer { end(drain) }
            outcome = .success(try await backend.root.resize(to: byteCount))
        } catch { outcome = .failure(error) }
        await release(backend)
        try outcome.get()
    }

    /// Has the first write that ends beyond `bytes` reported, once; 0 turns it off (block-set-write-threshold).
    package func setWriteThreshold(
        _ bytes: UInt64, of name: String, report: @escaping @Sendable (_ excess: UInt64, _ threshold: UInt64) -> Void
    ) async throws(BlockError) {
        guard let node = state.nodes[name]?.node else { throw BlockError(.notFound, "Device '\(name)' not found") }
        await changes.withLock { () async in node.setWriteThreshold(bytes, report) }
    }

    /// Writes another backing file name into the image of a node, whose chain stays as it is (change-backing-file).
    /// - Parameter root: a node from which the image can be reached.
    package func changeBackingFile(of image: String, below root: String, to file: String) async throws(BlockError) {
        let record: GraphState.NodeRecord
        let isOpenedForThis: Bool
        (record, isOpenedForThis) = try await change { change async throws(BlockError) -> (GraphState.NodeRecord, Bool) in
            let top = try change.record(root)
            if top.parents.contains(where: { id in if case .node? = change.state.edges[id]?.owner { true } else { false } }) {
                throw BlockError(.invalidArgument, "Need a root block node")
            }
            try change.state.checkNotBlocked(.changeBackingFile, on: root)
            guard let record = change.state.nodes[image] else { throw BlockError(.notFound, "Cannot find device='' nor node-name='\(image)'") }
            guard record.node.backingChild != nil, record.node.driver is any BackingFileNaming else {
                throw BlockError(.invalidArgument, "not allowing backing file change on an image without a backing file")
            }
            guard change.state.reaches(from: root, to: image) else {
                throw BlockError(.invalidArgument, "'\(root)' and image file are not in the same chain")
            }
            return (record, record.options.isReadOnly)
        }
        if isOpenedForThis { try await reopen(image, isReadOnly: false) }
        let outcome: Result<Void, BlockError>
        do throws(BlockError) {
            outcome = .success(try await storeBackingName(file, format: record.node.backingChild?.node.formatName, in: record.node, by: "change-backing-file"))
        } catch { outcome = .failure(error) }
        if isOpenedForThis { try await reopen(image, isReadOnly: true) }
        try outcome.get()
    }

    /// Writes into the image of a writable node what its backing file is called; the chain stays as it is.
    /// - Parameters:
    ///   - file: nil for none.
    ///   - holder: how whoever does it is called in messages.
    package func storeBackingName(_ file: String?, format: String?, in node: BlockNode, by holder: String) async throws(BlockError) {
        guard let naming = node.driver as? any BackingFileNaming else {
            throw BlockError(.unsupported, "Node '\(node.name)' (\(node.formatName)) stores no name of a backing file")
        }
        // Writing metadata changes nothing that a reader of the image sees.
        let backend = try await makeBackend(named: holder, on: node.name, PermissionGrant(used: .writeUnchanged, shared: .all))
        let drain = await beginDrain(of: [node.name])
        let outcome: Result<Void, BlockError>
        do throws(BlockError) {
            outcome = .success(try await naming.changeBackingFile(to: file, format: format))
        } catch { outcome = .failure(error.during("Could not change the backing file to '\(file ?? "")'")) }
        end(drain)
        await release(backend)
        try outcome.get()
    }

    /// Moves a node, and everything that hangs together with it, to another I/O thread (x-blockdev-set-iothread). See Docs/Concurrency.md for what
    /// that means here.
    /// - Parameters:
    ///   - find: looks the thread up, after the node has been found.
    ///   - isForced: although somebody uses the node.
    package func move(_ name: String, isForced: Bool, to find: @Sendable () throws(BlockError) -> IOContext) async throws(BlockError) {
        try await changes.withLock { () async throws(BlockError) in
            guard let record = state.nodes[name] else { throw BlockError(.notFound, "Failed to find node with node-name='\(name)'") }
            let isUsed = record.parents.contains { id in if case .backend? = state.edges[id]?.owner { true } else { false } }
            if isUsed, !isForced {
                throw BlockError(
                    .permissionConflict, "Node \(name) is associated with a BlockBackend and could be in use (use force=true to override this check)")
            }
            let context = try find()
            let nodes = state.connected(to: name)
            let backends = state.backends(above: nodes)
            if backends.contains(where: \.isFixed) { throw BlockError(.permissionConflict, "Cannot change iothread of active block backend") }
            for node in nodes { state.setContext(context, of: node) }
            for backend in backends { backend.move(to: context) }
        }
    }

    /// The I/O thread on which new users of a node are served; nil when nobody has chosen one.
    package func context(ofNodeNamed name: String) -> IOContext? { state.nodes[name]?.context }
}

extension GraphChange {
    /// - Throws: why a node cannot get an overlay at the moment.
    package func checkSnapshot(of name: String) throws(BlockError) {
        _ = try record(name)
        try state.checkNotBlocked(.snapshot, on: name)
    }

    /// Puts an overlay on top of a node. What the node has in memory is written out, and it is read-only from then on.
    package func takeSnapshot(of name: String, overlay: String) throws(BlockError) {
        let above = try record(overlay)
        let users = above.parents.compactMap { state.edges[$0]?.grant.used }
        // Somebody who only writes to the overlay is welcome: a mirror that is going to fill it.
        if users.contains(where: { $0.contains(.consistentRead) }) { throw BlockError(.permissionConflict, "The overlay is already in use") }
        if above.node.backingChild != nil { throw BlockError(.invalidArgument, "The overlay already has a backing image") }
        try append(overlay, onTopOf: name)
        try setReadOnly(true, of: name)
    }
}

/// What has changed when an overlay was put on top of a node.
package struct TakenSnapshot: Sendable {
    package let node: String
    package let overlay: String
    /// The node's users that went over to the overlay.
    fileprivate let moved: [GraphState.EdgeID]
    /// Options that nodes had before.
    fileprivate let options: [String: NodeOptions]
}
