internal import CStrataLinux
import Glibc
package import StrataBase

/// One end of a stream connection, or any descriptor that reads and writes like one. Closed when the last reference goes.
package final class ConnectedSocket: Sendable {
    package let descriptor: Int32
    /// Encrypts what is sent and received, if anything does. It keeps the plain socket open.
    private let encryption: TLSSession?
    private let ownsDescriptor: Bool

    /// Takes over an open socket.
    package init(adopting descriptor: Int32) {
        self.descriptor = descriptor
        encryption = nil
        ownsDescriptor = true
    }

    /// The same connection, encrypted by a session whose handshake is done.
    package init(_ plain: ConnectedSocket, encryptedBy session: TLSSession) {
        descriptor = plain.descriptor
        encryption = session
        ownsDescriptor = false
    }

    package var isEncrypted: Bool { encryption != nil }

    /// Whether more can be received although the descriptor is not readable: whoever stops receiving early looks here before he waits.
    package var hasPending: Bool { encryption?.hasPending ?? false }

    /// Connects. Blocks until the peer has accepted; call from a worker or a tool.
    package init(connectingTo address: HostAddress, tcp settings: TCPSettings = TCPSettings()) throws(BlockError) {
        encryption = nil
        ownsDescriptor = true
        Trace.socketConnectBegin(address: address.description)
        defer { Trace.socketConnectEnd(address: address.description) }
        switch address {
        case .unix(let path): descriptor = unsafe try address.connected(strata_connect_unix(path, path.utf8.count, Int32(STRATA_UNIX_PATH)))
        case .tcp(let host, let port): descriptor = unsafe try address.connected(strata_connect_tcp(host, port, settings.family.rawValue, settings.cFlags))
        case .abstract(let name, let isPadded):
            let kind = Int32(isPadded ? STRATA_UNIX_PADDED : STRATA_UNIX_ABSTRACT)
            descriptor = unsafe try address.connected(strata_connect_unix(name, name.utf8.count, kind))
        case .descriptor(let number):
            try HostAddress.checkConnected(number)
            descriptor = number
        }
    }

    /// The socket behind a descriptor that stays somebody else's.
    package convenience init(copying number: Int32) throws(BlockError) {
        try HostAddress.checkConnected(number)
        let copy = fcntl(number, F_DUPFD_CLOEXEC, 3)
        guard copy >= 0 else { throw BlockError(errno: errno, "Copying file descriptor '\(number)'") }
        self.init(adopting: copy)
    }

    /// Two sockets that are connected with each other, both blocking.
    package static func pair() throws(BlockError) -> (ConnectedSocket, ConnectedSocket) {
        var ends: (Int32, Int32) = (-1, -1)
        // SAFETY: the kernel writes two numbers, and there is room for two.
        let result = unsafe withUnsafeMutableBytes(of: &ends) { unsafe socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, $0.bindMemory(to: Int32.self).baseAddress) }
        if result < 0 { throw BlockError(errno: errno, "Making a pair of sockets") }
        return (ConnectedSocket(adopting: ends.0), ConnectedSocket(adopting: ends.1))
    }

    deinit {
        guard ownsDescriptor else { return }
        Trace.socketClose(descriptor: Int(descriptor))
        _ = strata_close(descriptor)
    }

    package enum Outcome: Sendable, Hashable {
        /// That many bytes, at least one.
        case bytes(Int)
        case wouldBlock
        /// The peer has closed its end (receive only).
        case closed
        /// The connection is broken; a positive errno.
        case failed(Int32)

        init(_ result: Int) {
            switch result {
            case 1...: self = .bytes(result)
            case 0: self = .closed
            case -Int(EAGAIN), -Int(EWOULDBLOCK): self = .wouldBlock
            default: self = .failed(Int32(truncatingIfNeeded: -result))
            }
        }
    }

    /// Takes what has arrived, up to the size of `bytes`. Never waits.
    package func receive(into bytes: inout MutableRawSpan) -> Outcome {
        unsafe bytes.withUnsafeMutableBytes { buffer in
            // SAFETY: at most `count` bytes are written into the span's own memory.
            unsafe receive(buffer)
        }
    }

    /// Takes what has arrived into the first run of `target`. Never waits.
    package func receive(into target: IOVector) -> Outcome {
        unsafe target.withFirstRun { run in unsafe receive(run) }
    }

    private func receive(_ memory: UnsafeMutableRawBufferPointer) -> Outcome {
        if let encryption { return Outcome(unsafe encryption.receive(memory.baseAddress, memory.count)) }
        return Outcome(unsafe strata_receive(descriptor, memory.baseAddress, memory.count))
    }

    /// Sends what fits into the socket's buffer. Never waits.
    /// - Parameter moreFollows: the rest of the message comes at once, so that the kernel may join the two.
    package func send(_ bytes: RawSpan, moreFollows: Bool = false) -> Outcome {
        unsafe bytes.withUnsafeBytes { buffer in
            if let encryption {
                var list = unsafe iovec(iov_base: UnsafeMutableRawPointer(mutating: buffer.baseAddress), iov_len: buffer.count)
                return sent(unsafe encryption.send(&list, 1))
            }
            return sent(unsafe strata_send(descriptor, buffer.baseAddress, buffer.count, moreFollows ? 1 : 0))
        }
    }

    /// Sends what fits of `source`. Never waits.
    package func send(_ source: IOVector, moreFollows: Bool = false) -> Outcome {
        unsafe source.withSystemVector { list, count in
            if let encryption { return sent(unsafe encryption.send(list, count)) }
            return sent(unsafe strata_send_vector(descriptor, list, count, moreFollows ? 1 : 0))
        }
    }

    /// The outcome of a call that sends.
    private func sent(_ result: Int) -> Outcome {
        let outcome = Outcome(result)
        switch outcome {
        case .bytes, .closed: break
        case .wouldBlock: Trace.socketFull(descriptor: Int(descriptor))
        case .failed(let number): Trace.socketFailed(descriptor: Int(descriptor), error: Int(number))
        }
        return outcome
    }

    /// Sends bytes of a file without copying them through this process. `offset` advances by what was sent.
    /// `.closed` means that the file ended early. Not on an encrypted socket: the bytes have to pass through this process then.
    package func sendFile(_ file: Int32, at offset: inout Int, byteCount: Int) -> Outcome {
        var position = Int64(offset)
        let result = unsafe strata_send_file(descriptor, file, &position, byteCount)
        offset = Int(position)
        return Outcome(result)
    }

    /// Asks the kernel for a send buffer of this many bytes; it may give less.
    package func setSendBuffer(byteCount: Int) { _ = strata_send_buffer(descriptor, Int32(clamping: byteCount)) }

    package func setNonBlocking(_ on: Bool) { _ = strata_set_nonblocking(descriptor, on ? 1 : 0) }

    /// Ends the connection in both directions; whoever waits for the descriptor is told. The descriptor stays open until deinit.
    package func shutDown() {
        encryption?.goodbye()
        _ = strata_shutdown(descriptor)
    }
}

extension IOVector {
    @unsafe
    func withFirstRun<R>(_ body: (UnsafeMutableRawBufferPointer) -> R) -> R {
        var first: UnsafeMutableRawBufferPointer?
        unsafe forEachRun { run in
            if unsafe first == nil { unsafe first = unsafe run }
        }
        return unsafe body(first ?? UnsafeMutableRawBufferPointer(start: nil, count: 0))
    }
}
