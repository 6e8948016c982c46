/// A metadata context that block status requests can be answered for. Source: NBD protocol document, "Metadata querying"; QEMU's document on its
/// own contexts for the `qemu:` ones.
package struct MetaContext: Hashable, Sendable {
    package enum Kind: Hashable, Sendable {
        /// Whether there is storage behind the bytes, and whether they read as zeroes.
        case baseAllocation
        /// Which layer of a backing chain holds the bytes: 1 for the top, 0 for none.
        case allocationDepth
        /// Which bytes have changed since the bitmap of that name was made.
        case dirtyBitmap(String)
    }

    package var kind: Kind
    /// The number that stands for the context in replies of a session. A client must not care which it is.
    package var identifier: UInt32

    package init(_ kind: Kind, identifier: UInt32) {
        self.kind = kind
        self.identifier = identifier
    }

    /// Every export has this one.
    package static let baseAllocation = MetaContext(.baseAllocation, identifier: 0)

    /// Full name on the wire.
    package var name: String {
        switch kind {
        case .baseAllocation: "base:allocation"
        case .allocationDepth: "qemu:allocation-depth"
        case .dirtyBitmap(let bitmap): "qemu:dirty-bitmap:\(bitmap)"
        }
    }

    /// Whether a query means this context. LIST understands a name that ends in a colon (`base:`, `qemu:dirty-bitmap:`) as "all that begin so";
    /// SET wants full names. A query that we do not know selects nothing, which is not an error.
    package func isMeant(by query: String, wildcards: Bool) -> Bool {
        name == query || (wildcards && query.utf8.last == UInt8(ascii: ":") && name.hasPrefix(query))
    }
}
