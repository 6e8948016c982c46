import IOCore
import NBDProtocol
import StrataBase

// Answers that carry no data. They only go into the send queue; the turn sends them.

extension ServerConnection {
    /// Success of anything but a read or a block status request. Simple replies are allowed for these unless extended headers were agreed on, and
    /// are shortest.
    func replyDone(to frame: RequestFrame) {
        Trace.nbdRequestEnd(client: self, cookie: frame.cookie, error: 0)
        guard phase != .closed else { return }
        if format == .extended { return replyEmpty(to: frame.reference) }
        sendQueue.append(SimpleReply.encodedSize) { SimpleReply.encode(cookie: frame.cookie, into: &$0) }
    }

    /// A chunk without a payload that ends its reply.
    func replyEmpty(to reference: ReplyFormat.Reference) {
        sendQueue.append(format.headerSize) { format.encodeHeader(.none, flags: .done, reference, payloadByteCount: 0, into: &$0) }
    }

    /// - Parameter text: for people; sent where the negotiated replies have room for it.
    func replyError(to reference: ReplyFormat.Reference, _ code: NBDErrorCode, _ text: String) {
        Trace.nbdRequestEnd(client: self, cookie: reference.cookie, error: code.rawValue)
        guard phase != .closed else { return }
        sendQueue.append(format.errorSize(text)) { format.encodeError(code, text, reference, into: &$0) }
    }
}
