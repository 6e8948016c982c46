import IOCore
import NBDProtocol
import StrataBase

/// One request to the server, before it has a number.
struct ClientRequest: Sendable {
    var command: NBDCommand
    var flags: NBDCommandFlags = []
    /// Bytes from the start of the export.
    var offset = 0
    var byteCount = 0
    /// The memory of a read or write, `byteCount` bytes. Alive until the request is over.
    var memory: IOVector?
}

/// What became of a request.
enum ClientOutcome: Sendable {
    case done
    /// What the server says about the beginning of a range.
    case extent(byteCount: Int, flags: UInt32)
    /// The server's refusal.
    case failed(ClientTransmission.Failure)
    /// The connection broke before the answer came: whether the request was carried out is not known.
    case lost
}
