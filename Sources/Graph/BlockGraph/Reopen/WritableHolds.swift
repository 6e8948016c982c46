import IOCore
import StorageSchema
package import StrataBase

// Read-only nodes that jobs write to for a while.

/// A node that is writable for as long as somebody holds it.
struct WritableHold {
    let node: BlockNode
    /// As it was before.
    let definition: BlockdevOptions
    var count = 1
    /// Somebody writes to it from now on.
    var staysWritable = false
}

extension BlockGraph {
    /// Makes a read-only node writable for a job that has to write to it.
    /// - Returns: whether `endWritable` has to follow; not for a node that is writable by itself.
    package func makeWritable(_ name: String) async throws(BlockError) -> Bool {
        try await writableChanges.withLock { () async throws(BlockError) -> Bool in
            guard let node = state.nodes[name]?.node, let definition = node.definition else { return false }
            if let hold = writable[name], hold.node === node, !node.isReadOnly {
                writable[name]?.count += 1
                return true
            }
            guard node.isReadOnly else { return false }
            var wanted = definition
            wanted.readOnly = false
            try await reopen(name, wanted, isReadOnly: false)
            writable[name] = WritableHold(node: node, definition: definition)
            return true
        }
    }

    /// The job does not write to it any more. When nobody does, the node is read-only again, whatever made it so: its definition, or a snapshot.
    /// - Parameter staysWritable: it is not, because somebody else writes to it from now on.
    /// - Throws: why it stays writable: somebody uses it so.
    package func endWritable(_ name: String, staysWritable: Bool = false) async throws(BlockError) {
        try await writableChanges.withLock { () async throws(BlockError) in
            guard var hold = writable[name] else { return }
            hold.count -= 1
            if staysWritable { hold.staysWritable = true }
            writable[name] = hold.count == 0 ? nil : hold
            guard hold.count == 0, !hold.staysWritable, state.nodes[name]?.node === hold.node else { return }
            try await reopen(name, hold.definition, isReadOnly: true)
        }
    }

    /// Runs `body` while a node is writable, which it is made for that time if need be.
    package func withWritable<Result: Sendable>(_ node: BlockNode, _ body: () async throws(BlockError) -> Result) async throws(BlockError) -> Result {
        while true {
            let isHeld = try await makeWritable(node.name)
            let wasWritable = !node.isReadOnly
            let outcome: Swift.Result<Result, BlockError>
            do throws(BlockError) { outcome = .success(try await body()) } catch { outcome = .failure(error) }
            let isWritable = !node.isReadOnly
            if isHeld { try await endWritable(node.name) }
            // A snapshot makes the node below it read-only, whoever is about to write to it: the node itself refuses, or what lies below it does.
            if case .failure(let error) = outcome, [.readOnly, .permissionConflict].contains(error.code), wasWritable, !isWritable { continue }
            return try outcome.get()
        }
    }
}
