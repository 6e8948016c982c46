/// The fixed numbers by which both sides recognise frames. Source: NBD protocol document, "Protocol phases" and "Transmission phase".
package enum NBDMagic {
    /// "NBDMAGIC", the first eight bytes of every greeting.
    package static let greeting: UInt64 = 0x4e42_444d_4147_4943
    /// "IHAVEOPT", in the newstyle greeting and before every option.
    package static let option: UInt64 = 0x4948_4156_454f_5054
    /// In the greeting of servers from before options existed.
    package static let oldstyle: UInt64 = 0x0000_4202_8186_1253

    /// Before every reply to an option.
    package static let optionReply: UInt64 = 0x0003_e889_0455_65a9

    /// A request with a 32-bit length.
    @inlinable package static var request: UInt32 { 0x2560_9513 }
    /// A request with a 64-bit length, after extended headers were agreed on.
    @inlinable package static var extendedRequest: UInt32 { 0x21e4_1c71 }
    @inlinable package static var simpleReply: UInt32 { 0x6744_6698 }
    @inlinable package static var structuredReply: UInt32 { 0x668e_33ef }
    @inlinable package static var extendedReply: UInt32 { 0x6e8a_278c }
}

/// Limits that both sides keep. The first two are the protocol's, the others are ours.
package enum NBDLimit {
    /// The longest string on the wire (export name, description, context name, error text), in bytes.
    package static let stringByteCount = 4096
    /// The longest payload of a read or write that every peer must be prepared for, in bytes.
    @inlinable package static var payloadByteCount: Int { 32 << 20 }
    /// The longest option payload that the server looks at, in bytes. Longer ones are skipped and answered by "too big".
    package static let optionPayloadByteCount = 32 << 10
    /// Options in one negotiation. A client that lists many exports asks a few questions about each.
    package static let optionCount = 8192
    /// Bytes of options in one negotiation, skipped ones included.
    package static let negotiationByteCount = 8 << 20
    /// Context queries in one option.
    package static let metaContextQueryCount = 256
}
