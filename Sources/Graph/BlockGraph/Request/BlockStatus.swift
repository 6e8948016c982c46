package import StrataBase

/// What a node knows about a run of bytes.
package struct BlockStatus: Sendable {
    package struct Flags: OptionSet, Hashable, Sendable {
        package let rawValue: UInt8
        package init(rawValue: UInt8) { self.rawValue = rawValue }
        /// The bytes are stored here; reading them reads a medium.
        package static let data = Flags(rawValue: 1 << 0)
        /// The bytes read as zeroes.
        package static let zero = Flags(rawValue: 1 << 1)
        /// This layer decides the content; without it the backing file does.
        package static let allocated = Flags(rawValue: 1 << 2)
        /// `offset` and `file` say where the bytes lie.
        package static let offsetValid = Flags(rawValue: 1 << 3)
        /// The run reaches the end of the node.
        package static let endOfFile = Flags(rawValue: 1 << 4)
        package static let compressed = Flags(rawValue: 1 << 5)
        /// `file` may know better, at `offset`, whether the bytes are zero.
        package static let recurse = Flags(rawValue: 1 << 6)
    }

    /// The length of the run in bytes: at least 1, at most what was asked about.
    package var byteCount: Int
    package var flags: Flags
    /// Where the run begins in `file`; meaningful with `.offsetValid`.
    package var offset: HostOffset
    /// The child that holds the bytes; nil when the node itself is the file.
    package var file: BlockChild?

    package init(byteCount: Int, flags: Flags, offset: HostOffset = HostOffset(0), file: BlockChild? = nil) {
        self.byteCount = byteCount
        self.flags = flags
        self.offset = offset
        self.file = file
    }
}
