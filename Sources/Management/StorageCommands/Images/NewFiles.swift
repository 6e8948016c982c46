import BlockGraph
import IOCore
import StorageSchema
import StrataBase

// Making images: the files that they are made in.

extension BlockGraph {
    /// Lends out a node that nobody else may use meanwhile.
    /// - Parameters:
    ///   - isEmptied: what it holds is cut off first.
    ///   - holder: who uses it, for messages about conflicts.
    func withExclusive<R: Sendable>(
        nodeNamed name: String, isEmptied: Bool = true, holder: String, _ body: (BlockBackend) async throws(BlockError) -> R
    ) async throws(BlockError) -> R {
        let backend = try await makeBackend(named: holder, on: name, PermissionGrant(used: [.consistentRead, .write, .resize], shared: []))
        let result: R
        do throws(BlockError) {
            if isEmptied { try await backend.resize(to: 0) }
            result = try await body(backend)
        } catch {
            await release(backend)
            throw error
        }
        await release(backend)
        return result
    }

    /// The same with a node that exists for that long only.
    func withExclusive<R: Sendable>(
        _ definition: BlockdevOptions, isEmptied: Bool = true, holder: String, _ body: (BlockBackend) async throws(BlockError) -> R
    ) async throws(BlockError) -> R {
        let node = try await add(definition)
        let result: R
        do throws(BlockError) { result = try await withExclusive(nodeNamed: node.name, isEmptied: isEmptied, holder: holder, body) } catch {
            try await remove(nodeNamed: node.name)
            throw error
        }
        try await remove(nodeNamed: node.name)
        return result
    }

    /// The same with a file, which is made if there is none, and then is gone again when `body` fails.
    /// - Returns: whether the file had to be made.
    func withNewFile(
        _ path: String, extentHint: Int = HostFile.usualExtentHint, holder: String, _ body: (BlockBackend) async throws(BlockError) -> Void
    ) async throws(BlockError) -> Bool {
        let isNew = try HostFile.create(path, extentHint: extentHint)
        do throws(BlockError) { try await withExclusive(.hostFile(path), holder: holder, body) } catch {
            if isNew { try HostFile.remove(path) }
            throw error
        }
        return isNew
    }
}
