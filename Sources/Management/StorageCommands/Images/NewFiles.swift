import BlockGraph
import IOCore
import StorageSchema
import StrataBase

// Making images: the files that they are made in.

extension BlockGraph {
    /// Lends out a node that nobody else may use meanwhile, emptied first.
    /// - Parameter holder: who uses it, for messages about conflicts.
    func withEmptied<R: Sendable>(nodeNamed name: String, holder: String, _ body: (BlockBackend) async throws(BlockError) -> R) async throws(BlockError) -> R {
        let backend = try await makeBackend(named: holder, on: name, PermissionGrant(used: [.consistentRead, .write, .resize], shared: []))
        let result: R
        do throws(BlockError) {
            try await backend.resize(to: 0)
            result = try await body(backend)
        } catch {
            await release(backend)
            throw error
        }
        await release(backend)
        return result
    }

    /// The same with a node that exists for that long only.
    func withEmptied<R: Sendable>(_ definition: BlockdevOptions, holder: String, _ body: (BlockBackend) async throws(BlockError) -> R) async throws(BlockError) -> R {
        let node = try await add(definition)
        let result: R
        do throws(BlockError) { result = try await withEmptied(nodeNamed: node.name, holder: holder, body) } catch {
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
        do throws(BlockError) { try await withEmptied(.hostFile(path), holder: holder, body) } catch {
            if isNew { try HostFile.remove(path) }
            throw error
        }
        return isNew
    }
}
