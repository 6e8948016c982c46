import BlockGraph
import StorageSchema

extension DriverUnderTest {
    static let blkdebug = DriverUnderTest(driver: "blkdebug", resizeUnit: 4096) { bench, byteCount in
        BlockdevOptions(.blkdebug(BlockdevOptionsBlkdebug(image: bench.child(byteCount))))
    }

    /// Looks as awkward as its options allow.
    static let blkdebugAligned = DriverUnderTest(driver: "blkdebug", variant: "with limits", resizeUnit: 4096, sizeUnit: 4096) { bench, byteCount in
        BlockdevOptions(
            .blkdebug(
                BlockdevOptionsBlkdebug(
                    image: bench.child(byteCount), align: 4096, maxTransfer: 12288, optWriteZero: 8192, maxWriteZero: 24576, optDiscard: 12288,
                    maxDiscard: 24576)))
    }

    static let blklogwrites = DriverUnderTest(driver: "blklogwrites", resizeUnit: 4096, sizeUnit: 512) { bench, byteCount in
        BlockdevOptions(.blklogwrites(BlockdevOptionsBlklogwrites(file: bench.child(byteCount), log: bench.child(0))))
    }

    static let blklogwritesInLargeSectors = DriverUnderTest(driver: "blklogwrites", variant: "4 KiB sectors", resizeUnit: 4096, sizeUnit: 4096) { bench, byteCount in
        BlockdevOptions(
            .blklogwrites(
                BlockdevOptionsBlklogwrites(
                    file: bench.child(byteCount), log: bench.child(0), logSectorSize: 4096, logSuperUpdateInterval: 3)))
    }

    static let blkverify = DriverUnderTest(driver: "blkverify", canResize: false) { bench, byteCount in
        BlockdevOptions(.blkverify(BlockdevOptionsBlkverify(test: bench.child(byteCount), raw: bench.child(byteCount))))
    }

    private static func makeQuorum(
        _ bench: ConformanceBench, _ byteCount: Int, _ pattern: QuorumReadPattern? = nil, rewrites: Bool? = nil
    ) -> BlockdevOptions {
        BlockdevOptions(
            .quorum(
                BlockdevOptionsQuorum(
                    children: (0..<3).map { _ in bench.child(byteCount) }, voteThreshold: 2, rewriteCorrupted: rewrites, readPattern: pattern)))
    }

    static let quorum = DriverUnderTest(driver: "quorum", canResize: false) { bench, byteCount in makeQuorum(bench, byteCount) }

    static let quorumReadingFirst = DriverUnderTest(driver: "quorum", variant: "fifo", canResize: false) { bench, byteCount in
        makeQuorum(bench, byteCount, .fifo)
    }

    static let quorumRewriting = DriverUnderTest(driver: "quorum", variant: "rewriting", canResize: false) { bench, byteCount in
        makeQuorum(bench, byteCount, rewrites: true)
    }
}
