import BlockGraph
package import StorageSchema

extension StorageService {
    /// Asks for one event when a write goes beyond an offset.
    package func blockSetWriteThreshold(_ arguments: BlockSetWriteThresholdArguments) async throws {
        let (name, send) = (arguments.nodeName, sendEvent)
        try await graph.setWriteThreshold(arguments.writeThreshold, of: name) { excess, threshold in
            send(BlockWriteThresholdEvent(nodeName: name, amountExceeded: excess, writeThreshold: threshold))
        }
    }
}
