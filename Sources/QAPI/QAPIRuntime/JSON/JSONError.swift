/// Why a text is not JSON.
public struct JSONError: Error, Hashable, Sendable, CustomStringConvertible {
    /// One sentence, in the wording that QMP clients see from QEMU.
    public let message: String
    /// Bytes from the start of the text or of the stream to the token that was refused.
    public let offset: Int

    init(_ message: String, at offset: Int) {
        self.message = message
        self.offset = offset
    }

    public var description: String { message }
}
