import IOCore
import StrataBase

/// A stream of which everything that is sent also goes to a file (`logfile`). A full disk loses the copy and nothing else.
final class LoggedStream: ByteStream {
    private let stream: any ByteStream
    private let log: ConnectedSocket

    init(_ stream: any ByteStream, log: ConnectedSocket) {
        self.stream = stream
        self.log = log
    }

    var inputDescriptor: Int32? { stream.inputDescriptor }
    var outputDescriptor: Int32? { stream.outputDescriptor }
    var hasPending: Bool { stream.hasPending }
    func receive(atMost byteCount: Int) -> Received { stream.receive(atMost: byteCount) }

    func send(_ bytes: [UInt8], from start: Int) -> ConnectedSocket.Outcome {
        let outcome = stream.send(bytes, from: start)
        if case .bytes(let count) = outcome { _ = log.send(Array(bytes[start..<start + count])) }
        return outcome
    }

    func begin() { stream.begin() }
    func end() { stream.end() }
}
