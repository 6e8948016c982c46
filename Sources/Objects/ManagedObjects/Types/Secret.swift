import IOCore
package import StorageSchema
package import StrataBase

/// A password or key, given directly or in a file.
package final class Secret: ManagedObject {
    package static let typeName = "secret"
    package static let parentTypeName = "secret_common"
    /// Far above any key.
    private static let sizeLimit = 1 << 20  // bytes

    /// The secret itself, decoded.
    package let bytes: [UInt8]
    private let source: SecretProperties

    /// Reads the file, if it is one.
    package init(_ options: SecretProperties, in registry: ObjectRegistry) throws(BlockError) {
        source = options
        var contents: [UInt8]
        switch (options.data, options.file) {
        case (_?, _?): throw BlockError(.invalidArgument, "'file' and 'data' are mutually exclusive")
        case (nil, nil): throw BlockError(.invalidArgument, "Either 'file' or 'data' must be provided")
        case (let data?, nil): contents = Array(data.utf8)
        case (nil, let file?):
            do { contents = try SmallFile.read(file, limit: Self.sizeLimit) } catch { throw error.during("Unable to read \(file)") }
        }
        let key = try options.keyid.map { id throws(BlockError) in try registry.secret(id) }
        if options.format == .base64 { contents = try Self.decode(contents) }
        if let key {
            guard let vector = options.iv else { throw BlockError(.invalidArgument, "IV is required to decrypt secret") }
            contents = try BlockCipher.decryptAES256CBC(contents, key: key, vector: try Self.decode(Array(vector.utf8)))
        }
        bytes = contents
    }

    private static func decode(_ text: [UInt8]) throws(BlockError) -> [UInt8] {
        guard let decoded = Base64.decode(text) else { throw BlockError(.invalidArgument, "Base64 data contains invalid characters") }
        return decoded
    }

    /// What the object was made from; fixed, because whoever has used the secret would not hear of a change.
    package static let properties: [ObjectProperty<Secret>] = [
        ObjectProperty("iv", type: "string") { $0.source.iv ?? "" },
        ObjectProperty("keyid", type: "string") { $0.source.keyid ?? "" },
        ObjectProperty("format", type: "QCryptoSecretFormat") { $0.source.format ?? .raw },
        ObjectProperty("file", type: "string") { $0.source.file ?? "" },
        ObjectProperty("data", type: "string") { $0.source.data ?? "" },
    ]
}

extension ObjectRegistry {
    /// The bytes of the secret `id`.
    /// - Throws: `.notFound`.
    package func secret(_ id: String) throws(BlockError) -> [UInt8] {
        guard let secret = object(id, as: Secret.self) else { throw BlockError(.notFound, "No secret with id '\(id)'") }
        return secret.bytes
    }

    /// The secret `id` as a password.
    /// - Throws: `.notFound`; `.invalidArgument` when it is not UTF-8.
    package func password(_ id: String) throws(BlockError) -> String {
        guard let text = String(validating: try secret(id), as: UTF8.self) else {
            throw BlockError(.invalidArgument, "Data from secret \(id) is not valid UTF-8")
        }
        return text
    }
}
