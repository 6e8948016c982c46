package import StrataBase

/// A client's side of a handshake, whatever it is after: a pure value, fed with what arrived, that says what to send.
package protocol ClientNegotiation: Sendable {
    /// What a negotiation that succeeds comes to.
    associatedtype Outcome: Sendable

    /// Takes as much of `bytes` as can be understood so far, at most one message.
    /// - Returns: how many bytes to drop from the front, and what to do after sending what was written to `output`.
    /// - Throws: what the server did wrong, or how it refused.
    mutating func advance(_ bytes: RawSpan, _ output: inout HandshakeOutput) throws(BlockError) -> (consumed: Int, NegotiationStep<Outcome>)

    /// The connection is encrypted now: goes on with the options.
    mutating func tlsStarted(_ output: inout HandshakeOutput)
}

/// What a client does next.
package enum NegotiationStep<Outcome: Sendable>: Sendable {
    /// Wait for more bytes, or go on when some were consumed.
    case needsMore
    /// Encrypt from here on. Bytes that have arrived already must not be used.
    case startTLS
    case done(Outcome)
}

extension ClientHandshake: ClientNegotiation {
    package mutating func advance(_ bytes: RawSpan, _ output: inout HandshakeOutput) throws(BlockError) -> (consumed: Int, NegotiationStep<NBDClientSession>) {
        let (consumed, verdict) = try consume(bytes, &output)
        switch verdict {
        case .needsMore: return (consumed, .needsMore)
        case .startTLS: return (consumed, .startTLS)
        case .transmission(let session): return (consumed, .done(session))
        }
    }
}
