import BlockGraph
package import StorageSchema
import StrataBase

extension StorageService {
    /// Changes the length of a node. There are no devices here, so `device` names nothing.
    package func blockResize(_ arguments: BlockResizeArguments) async throws {
        guard let name = arguments.nodeName, await graph.node(named: name) != nil else {
            throw BlockError(.notFound, "Cannot find device='\(arguments.device ?? "")' nor node-name='\(arguments.nodeName ?? "")'")
        }
        guard arguments.size >= 0 else { throw BlockError(.invalidArgument, "Parameter 'size' expects a >0 size") }
        try await graph.resize(name, to: arguments.size)
    }
}
