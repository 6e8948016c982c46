import BlockGraph
package import StorageSchema
import StrataBase

// Exports by the commands that came before `block-export-add` and `block-export-del`.

extension StorageService {
    /// Makes an NBD export whose id is its name. A node that is read-only is exported so, whatever was asked for.
    package func nbdServerAdd(_ arguments: NbdServerAddOptions) async throws {
        guard let node = await graph.node(named: arguments.device) else {
            throw BlockError(.notFound, "Cannot find device='\(arguments.device)' nor node-name='\(arguments.device)'")
        }
        let name = arguments.name ?? arguments.device
        let export = BlockExportOptionsNbd(
            name: name, description: arguments.description, bitmaps: arguments.bitmap.map { [.local($0)] }, allocationDepth: nil)
        try await blockExportAdd(
            BlockExportOptions(.nbd(export), id: name, nodeName: arguments.device, writable: arguments.writable == true && !node.isReadOnly))
    }

    package func nbdServerRemove(_ arguments: NbdServerRemoveArguments) async throws {
        try await blockExportDel(BlockExportDelArguments(id: arguments.name, mode: arguments.mode))
    }
}
