import BlockGraph
import IOCore
import QAPIRuntime
import StorageSchema
import StrataBase

extension ImageSession {
    /// Finds out the format of an image that lies in the node which `options` describe, by looking at its first bytes.
    /// - Throws: when they cannot be read, and for formats that are recognised but not supported.
    func probeFormat(inside options: JSONObject) async throws(BlockError) -> String {
        if options["driver"]?.string == "file", let path = options["filename"]?.string {
            // A look at a file needs no node, and takes no locks.
            let header = IOBuffer(zeroed: FormatProbe.headerSize)
            defer { withExtendedLifetime(header) {} }
            let file = try HostFile(opening: path)
            if !file.tryRead(header.vector, at: HostOffset(0)) { try await file.read(header.vector, at: HostOffset(0)) }
            return try header.withBytes { bytes throws(BlockError) in try FormatProbe.format(of: bytes) }
        }
        let definition: BlockdevOptions
        do throws(QMPError) {
            definition = try BlockdevOptions(decoding: .object(LegacySizes.resolved(in: options)), mode: .keyValue)
        } catch {
            throw BlockError(.invalidArgument, Self.explain(error, options))
        }
        return try await graph.probeFormat(inside: definition)
    }
}
