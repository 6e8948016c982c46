import Strata

/// One measured operation of the library.
struct Benchmark: Sendable {
    let name: String
    /// The kind of disk it runs on.
    let format: BlockdevDriver
    /// Does operation number `index`; gives a number that depends on what was read, so that a wrong result is a different sum.
    let operation: @Sendable (Disk, _ index: Int) async throws -> UInt64
    /// How many run at once.
    let depth: Int

    /// Runs `count` operations.
    /// - Returns: operations per second, and the sum of what they gave.
    func run(on disk: Disk, count: Int) async throws -> (perSecond: Double, sum: UInt64) {
        let clock = ContinuousClock()
        let start = clock.now
        let sum = try await withThrowingTaskGroup(of: UInt64.self) { group in
            for lane in 0..<depth {
                group.addTask {
                    var sum: UInt64 = 0
                    var index = lane
                    while index < count {
                        sum &+= try await operation(disk, index)
                        index += depth
                    }
                    return sum
                }
            }
            var total: UInt64 = 0
            for try await sum in group { total &+= sum }
            return total
        }
        return (Double(count) / ((clock.now - start) / .seconds(1)), sum)
    }
}

extension Benchmark {
    /// Bytes of every disk here.
    static let diskSize = 64 << 20
    private static let block = 4096

    /// The same places on every machine, spread over the disk.
    private static func place(_ index: Int) -> Int { index &* 7919 % (diskSize / block) * block }

    static let all: [Benchmark] = [BlockdevDriver.raw, .qcow2].flatMap { format in
        [1, 16].flatMap { depth in
            [
                Benchmark(name: "read 4k", format: format, operation: { disk, index in
                    UInt64(try await disk.read(at: place(index), count: block)[index % block])
                }, depth: depth),
                Benchmark(name: "write 4k", format: format, operation: { disk, index in
                    try await disk.write([UInt8](repeating: UInt8(truncatingIfNeeded: index), count: block), at: place(index))
                    return UInt64(index)
                }, depth: depth),
                Benchmark(name: "block status", format: format, operation: { disk, index in
                    UInt64(try await disk.blockStatus(at: place(index), count: block).count)
                }, depth: depth),
            ]
        }
    }
}
