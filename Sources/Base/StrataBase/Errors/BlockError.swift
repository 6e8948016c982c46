/// What went wrong in the world: on a disk, on the wire, in an image, or in what somebody asked for.
///
/// One struct for the whole product. `code` decides what a caller does (and which errno, NBD error or QMP class goes out), `message` is one
/// sentence that names the offending thing, `steps` say what was being done. Bugs of our own are preconditions, not errors.
public struct BlockError: Error, Hashable, Sendable {
    /// What kind of failure. Each code maps to one errno in `errno`.
    public enum Code: Hashable, Sendable {
        /// The device or the kernel failed the request.
        case io
        case noSpace
        case noMemory
        /// A write to something that is, or was opened, read-only.
        case readOnly
        /// The thing cannot do this at all.
        case unsupported
        /// What was asked makes no sense: a bad option, a range outside the disk.
        case invalidArgument
        /// The image, not the request, is wrong.
        case corruptImage
        case notFound
        case alreadyExists
        /// Two users want what excludes each other, or something is in use.
        case permissionConflict
        /// Another process holds the lock.
        case locked
        case accessDenied
        case tooLarge
        case cancelled
        /// The peer went away or spoke nonsense.
        case connection
        case timedOut
        /// A failure that is best described by the system's own number.
        case system(Int32)
    }

    public var code: Code
    /// One sentence without a newline; it names the node, file or option.
    public var message: String
    /// What was being done, outermost first.
    public var steps: [String] = []
    /// Advice for a person at a terminal. Tools print it on a line of its own; QMP does not carry it.
    public var hint: String?

    public init(_ code: Code, _ message: String, hint: String? = nil) {
        self.code = code
        self.message = message
        self.hint = hint
    }

    /// The same error with the step that led here in front.
    public func during(_ step: String) -> BlockError {
        var copy = self
        copy.steps.insert(step, at: 0)
        return copy
    }
}

extension BlockError: CustomStringConvertible {
    /// The steps and the message, joined as QEMU joins prefixes: `step: step: message`.
    public var description: String { steps.isEmpty ? message : steps.joined(separator: ": ") + ": " + message }
}
