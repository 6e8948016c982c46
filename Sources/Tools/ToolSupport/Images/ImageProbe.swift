import BlockGraph
import IOCore
import QAPIRuntime
import StorageSchema
import StrataBase

extension ImageSession {
    /// Finds out the format of an image that lies in the node which `options` describe, by looking at its first bytes.
    /// - Throws: when they cannot be read, and for formats that are recognised but not supported.
    func probeFormat(inside options: JSONObject) async throws(BlockError) -> String {
        let header = IOBuffer(zeroed: FormatProbe.headerSize)
        defer { withExtendedLifetime(header) {} }
        if options["driver"]?.string == "file", let path = options["filename"]?.string {
            // A look at a file needs no node, and takes no locks.
            let file = try HostFile(opening: path)
            if !file.tryRead(header.vector, at: HostOffset(0)) { try await file.read(header.vector, at: HostOffset(0)) }
        } else {
            try await readStart(of: options, into: header)
        }
        return try header.withBytes { bytes throws(BlockError) in try FormatProbe.format(of: bytes) }
    }

    private func readStart(of options: JSONObject, into header: IOBuffer) async throws(BlockError) {
        var options = options
        options["read-only"] = true
        let definition: BlockdevOptions
        do throws(QMPError) {
            definition = try BlockdevOptions(decoding: .object(LegacySizes.resolved(in: options)), mode: .keyValue)
        } catch {
            throw BlockError(.invalidArgument, Self.explain(error, options))
        }
        let node = try await graph.add(definition)
        do throws(BlockError) {
            let backend = try await graph.makeBackend(named: "probing", on: node.name, PermissionGrant(used: .consistentRead, shared: .all))
            do throws(BlockError) {
                try await backend.read(header.vector(at: 0, byteCount: min(header.byteCount, backend.length)), at: GuestOffset(0))
            } catch {
                await graph.release(backend)
                throw error
            }
            await graph.release(backend)
        } catch {
            try await graph.remove(nodeNamed: node.name)
            throw error
        }
        try await graph.remove(nodeNamed: node.name)
    }
}
