package import IOCore
package import StorageSchema
package import StrataBase

extension BlockGraph {
    /// Finds out the format of an image by the first bytes of what it lies in, which is opened for this only.
    /// - Parameter file: a protocol node.
    /// - Throws: when they cannot be read, and for formats that are recognised but not supported.
    package func probeFormat(inside file: BlockdevOptions) async throws(BlockError) -> String {
        try await start(ofImageInside: file).withBytes { bytes throws(BlockError) in try FormatProbe.format(of: bytes) }
    }

    /// The first bytes of what an image lies in, `FormatProbe.headerSize` of them, with zeroes for what is not there. It is opened for this only.
    /// - Parameter file: a protocol node.
    package func start(ofImageInside file: BlockdevOptions) async throws(BlockError) -> IOBuffer {
        let header = IOBuffer(zeroed: FormatProbe.headerSize)
        defer { withExtendedLifetime(header) {} }
        var options = file
        options.readOnly = true
        options.nodeName = nil
        let node = try await add(options)
        let outcome: Result<Void, BlockError>
        do throws(BlockError) {
            let backend = try await makeBackend(named: "probing", on: node.name, PermissionGrant(used: .consistentRead, shared: .all))
            do throws(BlockError) {
                outcome = .success(try await backend.read(header.vector(at: 0, byteCount: min(header.byteCount, backend.length)), at: GuestOffset(0)))
            } catch {
                await release(backend)
                throw error
            }
            await release(backend)
        } catch { outcome = .failure(error) }
        try await remove(nodeNamed: node.name)
        try outcome.get()
        return header
    }
}
