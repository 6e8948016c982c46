/// A metadata context that block status requests can be answered for. Source: NBD protocol document, "Metadata querying".
package enum MetaContext: Hashable, Sendable, CaseIterable {
    case baseAllocation

    /// Full name on the wire.
    package var name: String {
        switch self {
        case .baseAllocation: "base:allocation"
        }
    }

    /// The number that stands for the context in replies of a session. Fixed: a client must not care.
    package var identifier: UInt32 {
        switch self {
        case .baseAllocation: 0
        }
    }

    /// The contexts that a query names. Only LIST understands a bare namespace (`base:`) as "all of these"; SET wants full names.
    /// A query that we do not know selects nothing, which is not an error.
    package static func matching(_ query: String, wildcards: Bool) -> [MetaContext] {
        allCases.filter { context in
            context.name == query || (wildcards && query.utf8.last == UInt8(ascii: ":") && context.name.hasPrefix(query))
        }
    }
}
