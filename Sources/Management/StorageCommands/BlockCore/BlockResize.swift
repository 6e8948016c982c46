import BlockGraph
package import StorageSchema
import StrataBase

extension StorageService {
    /// Changes the length of a node. `device` names a node too: there are no devices here.
    package func blockResize(_ arguments: BlockResizeArguments) async throws {
        if arguments.device != nil, arguments.nodeName != nil {
            throw BlockError(.invalidArgument, "Cannot use both 'device' and 'node-name': give one of them")
        }
        let name = arguments.nodeName ?? arguments.device ?? ""
        guard let node = await graph.node(named: name) else {
            throw BlockError(.notFound, "Cannot find device='\(arguments.device ?? "")' nor node-name='\(arguments.nodeName ?? "")'")
        }
        guard arguments.size >= 0 else { throw BlockError(.invalidArgument, "Parameter 'size' expects a >0 size") }
        if node.isReadOnly { throw node.readOnlyError }
        let backend = try await graph.makeBackend(named: "block_resize", on: name, PermissionGrant(used: .resize, shared: .all))
        do throws(BlockError) {
            try await backend.resize(to: arguments.size)
        } catch {
            await graph.release(backend)
            throw error
        }
        await graph.release(backend)
    }
}
