/// How much a peer may make us hold before its message is refused. The defaults are QEMU's.
public struct JSONLimits: Hashable, Sendable {
    /// Bytes of token text in one message.
    public var byteCount = 64 << 20
    /// Tokens in one message.
    public var tokenCount = 2 << 20
    /// Arrays and objects inside one another.
    public var nesting = 1024

    public init() {}
}
