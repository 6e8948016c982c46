internal import CStrataLinux

// Sockets for control traffic, where a copy costs nothing.

extension ConnectedSocket {
    /// Takes what has arrived, at most `byteCount` bytes. Never waits.
    /// - Returns: the outcome and, when bytes came, the bytes.
    package func receive(atMost byteCount: Int) -> (outcome: Outcome, bytes: [UInt8]) {
        var bytes = [UInt8](repeating: 0, count: byteCount)
        var span = bytes.mutableSpan
        var raw = unsafe span.mutableBytes  // SAFETY: any bytes that the kernel puts there are valid UInt8 values
        let outcome = receive(into: &raw)
        guard case .bytes(let count) = outcome else { return (outcome, []) }
        bytes.removeLast(byteCount - count)
        return (outcome, bytes)
    }

    /// The same with the open files that the peer passed along (SCM_RIGHTS); the caller owns them.
    /// None come along on an encrypted connection.
    package func receiveWithDescriptors(atMost byteCount: Int) -> (outcome: Outcome, bytes: [UInt8], descriptors: [OwnedDescriptor]) {
        if isEncrypted {
            let (outcome, bytes) = receive(atMost: byteCount)
            return (outcome, bytes, [])
        }
        var bytes = [UInt8](repeating: 0, count: byteCount)
        var descriptors = [Int32](repeating: -1, count: Int(STRATA_DESCRIPTOR_LIMIT))
        var received: Int32 = 0
        let result = unsafe bytes.withUnsafeMutableBytes { buffer in
            unsafe descriptors.withUnsafeMutableBufferPointer { list in
                // SAFETY: the call writes at most as many bytes and numbers as the two arrays have.
                unsafe strata_receive_descriptors(descriptor, buffer.baseAddress, buffer.count, list.baseAddress, Int32(list.count), &received)
            }
        }
        let owned = descriptors[..<Int(received)].map { OwnedDescriptor($0) }
        let outcome = Outcome(result)
        guard case .bytes(let count) = outcome else { return (outcome, [], owned) }
        bytes.removeLast(byteCount - count)
        return (outcome, bytes, owned)
    }

    /// Sends what fits of `bytes` from `start` on. Never waits.
    package func send(_ bytes: [UInt8], from start: Int = 0) -> Outcome {
        // SAFETY: UInt8 has no padding, so every byte is initialized.
        send(unsafe bytes.span.bytes.extracting(start..<bytes.count))
    }
}
