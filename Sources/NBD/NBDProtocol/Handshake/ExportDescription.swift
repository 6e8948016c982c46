/// What a client may learn about an export before it uses it.
package struct ExportDescription: Hashable, Sendable {
    /// At most 4096 bytes of UTF-8.
    package var name: String
    /// For people; at most 4096 bytes of UTF-8.
    package var description: String?
    /// Bytes.
    package var byteCount: Int
    /// What the export can do. "Don't fragment" is added by the handshake where structured replies were agreed on.
    package var flags: NBDTransmissionFlags
    package var blockSizes: NBDBlockSizes
    /// What block status requests can be answered for.
    package var metaContexts: [MetaContext]

    package init(
        name: String, description: String? = nil, byteCount: Int, flags: NBDTransmissionFlags, blockSizes: NBDBlockSizes = NBDBlockSizes(),
        metaContexts: [MetaContext] = [.baseAllocation]
    ) {
        self.name = name
        self.description = description
        self.byteCount = byteCount
        self.flags = flags.union(.hasFlags)
        self.blockSizes = blockSizes
        self.metaContexts = metaContexts
    }
}

/// Block size constraints, in bytes. Source: NBD protocol document, "Block size constraints".
package struct NBDBlockSizes: Hashable, Sendable {
    /// A power of two; requests must be multiples of it.
    package var minimum: Int
    /// A power of two; requests should be multiples of it.
    package var preferred: Int
    /// The longest payload.
    package var maximum: Int

    package init(minimum: Int = 1, preferred: Int = 4096, maximum: Int = NBDLimit.payloadByteCount) {
        self.minimum = minimum
        self.preferred = preferred
        self.maximum = maximum
    }
}

/// Where the handshake finds exports. Asked synchronously, possibly many times: answers come from memory.
package protocol ExportDirectory {
    /// The export of that name. The empty name asks for the default export.
    func export(named name: String) -> ExportDescription?
    /// Name and description of what LIST shows.
    var listing: [(name: String, description: String?)] { get }
}

/// What a finished handshake agreed on.
package struct NBDSession: Hashable, Sendable {
    package typealias ReplyStyle = ReplyFormat

    package var export: ExportDescription
    package var replyStyle: ReplyStyle
    /// Contexts for block status requests, in the order in which the client asked; empty when none were negotiated.
    package var metaContexts: [MetaContext]

    package init(export: ExportDescription, replyStyle: ReplyStyle, metaContexts: [MetaContext] = []) {
        self.export = export
        self.replyStyle = replyStyle
        self.metaContexts = metaContexts
    }
}
