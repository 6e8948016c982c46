/// What a client may ask for during the handshake. A struct: any 32-bit number may arrive.
package struct NBDOption: RawRepresentable, Hashable, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
    package static let exportName = Self(rawValue: 1), abort = Self(rawValue: 2), list = Self(rawValue: 3)
    package static let startTLS = Self(rawValue: 5), info = Self(rawValue: 6), go = Self(rawValue: 7)
    package static let structuredReply = Self(rawValue: 8), listMetaContext = Self(rawValue: 9), setMetaContext = Self(rawValue: 10)
    package static let extendedHeaders = Self(rawValue: 11)
}

/// The kinds of answer to an option. Errors have the top bit set.
package struct NBDOptionReplyType: RawRepresentable, Hashable, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
    private static func error(_ number: UInt32) -> Self { Self(rawValue: 1 << 31 | number) }

    package static let acknowledged = Self(rawValue: 1), server = Self(rawValue: 2), info = Self(rawValue: 3), metaContext = Self(rawValue: 4)
    package static let unsupported = error(1), policy = error(2), invalid = error(3), platform = error(4), tlsRequired = error(5)
    package static let unknownExport = error(6), shutdown = error(7), blockSizeRequired = error(8), tooBig = error(9)
    package static let extendedHeadersRequired = error(10)

    package var isError: Bool { rawValue >> 31 == 1 }
}

/// The kinds of information in an INFO reply.
package struct NBDInfoType: RawRepresentable, Hashable, Sendable {
    package let rawValue: UInt16
    package init(rawValue: UInt16) { self.rawValue = rawValue }
    package static let export = Self(rawValue: 0), name = Self(rawValue: 1), description = Self(rawValue: 2), blockSize = Self(rawValue: 3)
}
