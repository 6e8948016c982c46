package import IOCore
import StrataBase

/// The bytes of one conversation, in both directions. Nothing here ever waits. On the thread of the context that the conversation runs on.
package protocol ByteStream: AnyObject, Sendable {
    /// What to watch for input; nil when no input ever comes.
    var inputDescriptor: Int32? { get }
    /// What to watch for room for output; nil when there always is.
    var outputDescriptor: Int32? { get }
    /// Whether something can be received although the descriptor is not readable.
    var hasPending: Bool { get }

    /// Takes what has arrived, at most `byteCount` bytes, with the open files that came along (unix sockets only).
    func receive(atMost byteCount: Int) -> Received

    /// Sends what fits of `bytes` from `start` on.
    func send(_ bytes: [UInt8], from start: Int) -> ConnectedSocket.Outcome

    /// A conversation begins: descriptors stop waiting.
    func begin()

    /// The conversation is over: whoever is at the other end is told, and borrowed descriptors are given back as they were. Once.
    func end()
}

extension ByteStream {
    package var hasPending: Bool { false }
}

/// What has arrived.
package typealias Received = (outcome: ConnectedSocket.Outcome, bytes: [UInt8], descriptors: [OwnedDescriptor])

/// A stream over descriptors: one for both directions, or one for each.
package final class DescriptorStream: ByteStream {
    /// What the end of a conversation means for the descriptors.
    package enum Ending: Sendable {
        /// They belong to the conversation: the peer sees the end.
        case shutsDown
        /// They are somebody else's, who does not expect them to be non-blocking: standard input and output.
        case givesBack
        /// They outlive the conversation: pipes and terminals.
        case leaves
    }

    private let input: ConnectedSocket?
    private let output: ConnectedSocket
    private let ending: Ending

    package init(_ socket: ConnectedSocket, ending: Ending = .shutsDown) {
        input = socket
        output = socket
        self.ending = ending
    }

    /// - Parameter input: nil when nothing ever comes.
    package init(input: ConnectedSocket?, output: ConnectedSocket, ending: Ending) {
        self.input = input
        self.output = output
        self.ending = ending
    }

    package var inputDescriptor: Int32? { input?.descriptor }
    package var outputDescriptor: Int32? { output.descriptor }
    package var hasPending: Bool { input?.hasPending ?? false }

    package func receive(atMost byteCount: Int) -> Received {
        input?.receiveWithDescriptors(atMost: byteCount) ?? (.wouldBlock, [], [])
    }

    package func send(_ bytes: [UInt8], from start: Int) -> ConnectedSocket.Outcome { output.send(bytes, from: start) }

    package func begin() {
        input?.setNonBlocking(true)
        output.setNonBlocking(true)
    }

    package func end() {
        switch ending {
        case .shutsDown:
            input?.shutDown()
            output.shutDown()
        case .givesBack:
            input?.setNonBlocking(false)
            output.setNonBlocking(false)
        case .leaves: break
        }
    }
}

/// A stream without descriptors: nothing comes, and what is sent goes to a function that always takes it.
package final class SinkStream: ByteStream {
    private let take: @Sendable (ArraySlice<UInt8>) -> Void

    package init(_ take: @escaping @Sendable (ArraySlice<UInt8>) -> Void) { self.take = take }

    package var inputDescriptor: Int32? { nil }
    package var outputDescriptor: Int32? { nil }
    package func receive(atMost byteCount: Int) -> Received { (.wouldBlock, [], []) }
    package func send(_ bytes: [UInt8], from start: Int) -> ConnectedSocket.Outcome {
        if start == bytes.count { return .wouldBlock }
        take(bytes[start...])
        return .bytes(bytes.count - start)
    }
    package func begin() {}
    package func end() {}
}
