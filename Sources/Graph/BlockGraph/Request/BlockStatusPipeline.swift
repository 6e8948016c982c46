import StrataBase

/// Answers what a node knows about a range, and what a whole backing chain knows.
enum BlockStatusPipeline {
    /// What `node` itself says about the beginning of `range`.
    static func status(_ node: BlockNode, _ asked: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus {
        precondition(!asked.isEmpty, "a status is asked of some bytes")
        // The caller has looked at the length, but a node that shrinks meanwhile is nobody's fault here: what it has lost reads as zeroes.
        let inside = min(asked.byteCount, node.length - asked.start.rawValue)
        guard inside > 0 else { return BlockStatus(byteCount: asked.byteCount, flags: [.zero, .endOfFile]) }
        let range = GuestRange(asked.start, byteCount: inside)
        guard let driver = node.statusReporting else {
            // A driver that cannot tell stores everything.
            return finish(BlockStatus(byteCount: range.byteCount, flags: [.data, .allocated]), range, node)
        }
        var status: BlockStatus
        if let quick = driver.tryBlockStatus(of: range, precise: precise) {
            status = quick
        } else {
            status = try await driver.blockStatus(of: range, precise: precise)
        }
        status.byteCount = min(status.byteCount, range.byteCount)
        precondition(status.byteCount > 0, "a driver says something about at least one byte")
        if precise, status.flags.isSuperset(of: [.recurse, .offsetValid]), let file = status.file {
            try await refine(&status, from: file)
        }
        return finish(status, range, node)
    }

    /// A format says where data lies, the file below whether there is anything but zeroes.
    private static func refine(_ status: inout BlockStatus, from file: BlockChild) async throws(BlockError) {
        let start = status.offset.asGuest
        let inside = min(status.byteCount, file.length - start.rawValue)
        if inside <= 0 {
            status.flags.insert(.zero)  // beyond the end of the file there are zeroes
            return
        }
        let below = try await BlockStatusPipeline.status(file.node, GuestRange(start, byteCount: inside), precise: true)
        status.byteCount = below.byteCount
        if below.flags.contains(.zero) { status.flags.insert(.zero) }
    }

    private static func finish(_ status: BlockStatus, _ range: GuestRange, _ node: BlockNode) -> BlockStatus {
        var status = status
        if range.start.rawValue + status.byteCount >= node.length { status.flags.insert(.endOfFile) }
        return status
    }

    /// What a reader of `node` finds at the beginning of `range`, looking through the backing chain.
    /// - Parameter base: the layer at which the search ends; nil: at the end of the chain.
    /// - Returns: the status, how many layers down the deciding node is (0: `node` itself), and that node: `base` when none above it decides.
    static func statusThroughChain(
        _ node: BlockNode, _ range: GuestRange, above base: BlockNode? = nil, precise: Bool
    ) async throws(BlockError) -> (status: BlockStatus, depth: Int, node: BlockNode) {
        var range = range
        var current = node
        var depth = 0
        while true {
            if let base, current === base { return (BlockStatus(byteCount: range.byteCount, flags: []), depth, current) }
            var status = try await status(current, range, precise: precise)
            if !status.flags.isDisjoint(with: [.allocated]) { return (status, depth, current) }
            guard let below = current.chainChild?.node else {
                // Nothing below: what is not allocated reads as zeroes, where something could be below. Another driver has its own reasons.
                if type(of: current.driver).supportsBacking { status.flags.insert(.zero) }
                return (status, depth, current)
            }
            range.byteCount = status.byteCount
            // Whatever the base has there, also nothing because it is shorter, it is for the base to say.
            if let base, below === base { return (BlockStatus(byteCount: range.byteCount, flags: []), depth + 1, below) }
            let inside = min(range.byteCount, below.length - range.start.rawValue)
            if inside <= 0 {
                // The backing file is shorter: beyond its end there are zeroes, and nothing is allocated.
                status.flags.insert(.zero)
                return (status, depth, current)
            }
            range.byteCount = inside
            current = below
            depth += 1
        }
    }
}
