/// The cache modes of `-t` and `-T`: three independent settings under one word.
package struct CacheMode: Sendable, Hashable {
    /// Host page cache bypassed (O_DIRECT).
    package var direct: Bool
    /// Flushes are dropped.
    package var noFlush: Bool
    /// Whether completed writes may still sit in a volatile cache: false makes every write durable.
    package var writeback: Bool

    /// The mode with this name, nil for a word that names none.
    package init?(_ name: String) {
        switch name {
        case "none", "off": self.init(direct: true, noFlush: false, writeback: true)
        case "directsync": self.init(direct: true, noFlush: false, writeback: false)
        case "writeback": self.init(direct: false, noFlush: false, writeback: true)
        case "unsafe": self.init(direct: false, noFlush: true, writeback: true)
        case "writethrough": self.init(direct: false, noFlush: false, writeback: false)
        default: return nil
        }
    }

    private init(direct: Bool, noFlush: Bool, writeback: Bool) {
        self.direct = direct
        self.noFlush = noFlush
        self.writeback = writeback
    }

    /// The mode that an option names; nil for an option that is not given.
    /// - Parameter subject: how messages call the option, as in `source cache option`.
    package init?(argument: String?, _ subject: String) throws(ToolFailure) {
        guard let argument else { return nil }
        guard let mode = CacheMode(argument) else { throw ToolFailure("Invalid \(subject): \(argument)") }
        self = mode
    }

    package static let writeback = CacheMode(direct: false, noFlush: false, writeback: true)
    package static let unsafe = CacheMode(direct: false, noFlush: true, writeback: true)
}
