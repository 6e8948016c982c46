import IOCore
import NBDProtocol
import StrataBase

// Answers that carry no data. They only go into the send queue; the turn sends them.

extension ServerConnection {
    /// Success of anything but a read or a block status request. Simple replies are allowed for these whatever was negotiated, and are shortest.
    func replyDone(to frame: RequestFrame) {
        guard phase != .closed else { return }
        sendQueue.append(SimpleReply.encodedSize) { SimpleReply.encode(cookie: frame.cookie, into: &$0) }
    }

    /// - Parameter text: for people; sent where the negotiated replies have room for it.
    func replyError(to frame: RequestFrame, _ code: NBDErrorCode, _ text: String) {
        guard phase != .closed else { return }
        if isStructured {
            sendQueue.append(StructuredReply.errorSize(text)) { StructuredReply.encodeError(code, text, cookie: frame.cookie, into: &$0) }
        } else {
            sendQueue.append(SimpleReply.encodedSize) { SimpleReply.encode(cookie: frame.cookie, error: code, into: &$0) }
        }
    }
}
