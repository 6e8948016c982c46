import IOCore
import StrataBase
import Synchronization

/// The bytes of a conversation with a telnet client, which is asked to leave them alone: character by character, without an echo of its own, in
/// eight bits. Sources: RFC 854 to 858; observed on QEMU.
///
/// What is sent needs no escapes: QMP is UTF-8, which has no byte 255.
final class TelnetStream: ByteStream {
    /// IAC WILL ECHO, WILL SUPPRESS-GO-AHEAD, WILL TRANSMIT-BINARY, DO TRANSMIT-BINARY.
    static let wishes: [UInt8] = [255, 251, 1, 255, 251, 3, 255, 251, 0, 255, 253, 0]

    private struct State {
        var commands = TelnetCommands()
        var unsentWishes = TelnetStream.wishes
    }

    private let stream: any ByteStream
    private let state = Mutex(State())

    init(_ stream: any ByteStream) { self.stream = stream }

    var inputDescriptor: Int32? { stream.inputDescriptor }
    var outputDescriptor: Int32? { stream.outputDescriptor }
    var hasPending: Bool { stream.hasPending }

    func receive(atMost byteCount: Int) -> Received {
        let received = stream.receive(atMost: byteCount)
        guard case .bytes = received.outcome else { return received }
        let data = state.withLock { $0.commands.remove(from: received.bytes) }
        return (data.isEmpty ? .wouldBlock : .bytes(data.count), data, received.descriptors)
    }

    func send(_ bytes: [UInt8], from start: Int) -> ConnectedSocket.Outcome {
        while true {
            let wishes = state.withLock { $0.unsentWishes }
            if wishes.isEmpty { return stream.send(bytes, from: start) }
            let outcome = stream.send(wishes, from: 0)
            guard case .bytes(let count) = outcome else { return outcome }
            state.withLock { $0.unsentWishes.removeFirst(count) }
        }
    }

    func begin() { stream.begin() }
    func end() { stream.end() }
}

/// Takes a client's commands out of what it sends. None of them is obeyed: whatever the client answers to our wishes, bytes are bytes.
struct TelnetCommands {
    private enum Place {
        case data
        /// Behind IAC.
        case command
        /// Behind WILL, WONT, DO or DONT: the option's number comes.
        case option
        /// Between SB and SE.
        case subnegotiation
        /// Behind IAC in there.
        case subnegotiationCommand
    }

    private var place = Place.data

    mutating func remove(from bytes: [UInt8]) -> [UInt8] {
        var data: [UInt8] = []
        for byte in bytes {
            switch (place, byte) {
            case (.data, 255): place = .command
            case (.data, _): data.append(byte)
            case (.command, 255):
                data.append(byte)
                place = .data
            case (.command, 250): place = .subnegotiation
            case (.command, 251...254): place = .option
            case (.command, _), (.option, _), (.subnegotiationCommand, 240): place = .data
            case (.subnegotiation, 255): place = .subnegotiationCommand
            case (.subnegotiation, _): break
            case (.subnegotiationCommand, _): place = .subnegotiation
            }
        }
        return data
    }
}
