package import BlockGraph
package import IOCore
package import StorageSchema
package import StrataBase

/// Writes to two nodes and compares everything that is read from them (`driver=blkverify`): `test` is what somebody doubts, `raw` a plain copy.
///
/// A difference in data or in success ends the program, with the words of QEMU 10.0.2. Zeroes are written as data, so that both sides see the same
/// request; discards, whose result is undefined, do not come here. Whether a flush succeeds is for
/// `test` alone to say: the copy need not survive. Requests go one at a
/// time: two that overlap have to take effect in the same order on both sides.
package final class BlkverifyDriver: BlockDriver, Flushing, StatusReporting, Reopening {
    package static let formatName = "blkverify"
    package static let kind = DriverKind.filter

    private let raw: BlockChild
    private let test: BlockChild
    /// Held across a request to both; nothing else is locked under it.
    private let order = AsyncMutex()

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .blkverify(let own) = options.branch else { throw BlockError(.invalidArgument, "options of another driver were given to 'blkverify'") }
        let raw = try await opener.openChild(own.raw, as: "raw", role: [.filtered, .primary])
        let test = try await opener.openChild(own.test, as: "test", role: .data)
        return BlkverifyDriver(raw: raw, test: test)
    }

    private init(raw: BlockChild, test: BlockChild) {
        self.raw = raw
        self.test = test
    }

    package var length: Int { test.length }
    package var children: [BlockChild] { [raw, test] }
    /// No file's name describes two.
    package var filename: String? { nil }

    package func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        let copy = IOBuffer(byteCount: target.byteCount)
        defer { withExtendedLifetime(copy) {} }
        // Bytes are compared: a child that only brings them near does not do.
        let flags = flags.subtracting([.alreadyTried, .prefetch])
        await order.lock()
        defer { order.unlock() }
        let tested = await outcome { () async throws(BlockError) in try await test.read(target, at: offset, flags: flags) }
        let expected = await outcome { () async throws(BlockError) in try await raw.read(copy.vector, at: offset, flags: flags) }
        try compare(tested, expected, "read", offset, target.byteCount)
        guard let difference = target.firstDifference(from: copy.vector) else { return }
        Mismatch.end("blkverify: read offset=\(offset.rawValue) bytes=\(target.byteCount) contents mismatch at offset \(offset.rawValue + difference)")
    }

    package func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        // Bytes are compared: a child that only brings them near does not do.
        let flags = flags.subtracting([.alreadyTried, .prefetch])
        await order.lock()
        defer { order.unlock() }
        let tested = await outcome { () async throws(BlockError) in try await test.write(source, at: offset, flags: flags) }
        let expected = await outcome { () async throws(BlockError) in try await raw.write(source, at: offset, flags: flags) }
        try compare(tested, expected, "write", offset, source.byteCount)
    }

    package func flush() async throws(BlockError) {
        try await test.flush()
        _ = await outcome { () async throws(BlockError) in try await raw.flush() }
    }

    package func blockStatus(of range: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus {
        try await raw.statusOfSameBytes(range, precise: precise)
    }

    private func outcome(_ request: () async throws(BlockError) -> Void) async -> BlockError? {
        do throws(BlockError) {
            try await request()
            return nil
        } catch { return error }
    }

    /// Both failed in the same way: that is the result. One failed: the end.
    private func compare(_ tested: BlockError?, _ expected: BlockError?, _ what: String, _ offset: GuestOffset, _ byteCount: Int) throws(BlockError) {
        let (left, right) = (-(tested?.errno ?? 0), -(expected?.errno ?? 0))
        if left != right {
            Mismatch.end("blkverify: \(what) offset=\(offset.rawValue) bytes=\(byteCount) return value mismatch \(left) != \(right)")
        }
        if let tested { throw tested }
    }
}
