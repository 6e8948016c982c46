import BlockGraph
import IOCore
import QAPIRuntime
import StorageSchema
import StrataBase

extension ImageSession {
    /// Finds out the format of an image that lies in the node which `options` describe, by looking at its first bytes.
    /// - Throws: when they cannot be read, and for formats that are recognised but not supported.
    func probeFormat(inside options: JSONObject) async throws(BlockError) -> String {
        try await start(of: options).withBytes { bytes throws(BlockError) in try FormatProbe.format(of: bytes) }
    }

    /// Command lines name the secret of an encrypted qcow2 image, and leave it to the image in which way it is encrypted.
    func withEncryptionFormat(_ options: JSONObject) async throws(BlockError) -> JSONObject {
        var options = options
        if let backing = options["backing"]?.object { options["backing"] = .object(try await withEncryptionFormat(backing)) }
        guard options["driver"]?.string == "qcow2", var encryption = options["encrypt"]?.object, encryption["format"] == nil,
            let file = options["file"]?.object
        else { return options }
        let method: UInt32 = try await start(of: file).withBytes { $0.checkedBigEndian(at: 32) }
        encryption["format"] = method == 1 ? "aes" : "luks"
        options["encrypt"] = method == 0 ? nil : .object(encryption)
        return options
    }

    /// The first bytes of a node.
    private func start(of options: JSONObject) async throws(BlockError) -> IOBuffer {
        if options["driver"]?.string == "file", let path = options["filename"]?.string {
            // A look at a file needs no node, and takes no locks.
            let header = IOBuffer(zeroed: FormatProbe.headerSize)
            let file = try HostFile(opening: path)
            if !file.tryRead(header.vector, at: HostOffset(0)) { try await file.read(header.vector, at: HostOffset(0)) }
            return header
        }
        let resolved = try LegacyOptions.resolved(in: options)
        let definition: BlockdevOptions
        do throws(QMPError) {
            definition = try BlockdevOptions(decoding: .object(resolved), mode: .keyValue)
        } catch {
            throw BlockError(.invalidArgument, Self.explain(error, options))
        }
        return try await graph.start(ofImageInside: definition)
    }
}
