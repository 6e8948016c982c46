import BlockGraph
package import StorageSchema

extension StorageService {
    /// Writes another name of the backing file into an image.
    package func changeBackingFile(_ arguments: ChangeBackingFileArguments) async throws {
        try await graph.changeBackingFile(of: arguments.imageNodeName, below: arguments.device, to: arguments.backingFile)
    }
}
