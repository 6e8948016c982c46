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

    /// Sends what fits of `bytes` from `start` on. Never waits.
    package func send(_ bytes: [UInt8], from start: Int = 0) -> Outcome {
        // SAFETY: UInt8 has no padding, so every byte is initialized.
        send(unsafe bytes.span.bytes.extracting(start..<bytes.count))
    }
}
