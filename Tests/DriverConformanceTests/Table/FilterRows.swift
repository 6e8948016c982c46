import BlockFilters
import BlockGraph
import DriverTesting
import ManagedObjects
import StorageSchema
import StrataBase
import Testing

extension DriverUnderTest {
    static let compress = DriverUnderTest(driver: "compress", resizeUnit: 4096, sizeUnit: 4096) { bench, byteCount in
        let disk = bench.disk(byteCount) { $0.compressionUnit = 4096 }
        return BlockdevOptions(.compress(BlockdevOptionsGenericFormat(file: .definition(disk.options()))))
    }

    /// Makes a target, whose alignment is that of the case. Guests' flushes are none of its business.
    private static func target(_ bench: ConformanceBench, _ byteCount: Int) -> BlockdevRef {
        let disk = SimulatedDisk(byteCount: byteCount.roundedUp(to: bench.current.alignment), SimulatedDisk.Properties(alignment: bench.current.alignment))
        bench.atEnd {
            #expect(disk.violations.isEmpty, "requests reached the target that it does not take: \(disk.violations)")
            disk.retire()
        }
        return .definition(disk.options())
    }

    static let copyBeforeWrite = DriverUnderTest(driver: "copy-before-write", resizeUnit: 4096) { bench, byteCount in
        BlockdevOptions(.copyBeforeWrite(BlockdevOptionsCbw(file: bench.child(byteCount), target: target(bench, byteCount))))
    }

    /// Nothing is left to copy because the snapshot is lost.
    static let copyBeforeWriteNothing = DriverUnderTest(driver: "copy-before-write", variant: "broken", resizeUnit: 4096) { bench, byteCount in
        BlockdevOptions(.copyBeforeWrite(BlockdevOptionsCbw(file: bench.child(byteCount), target: target(bench, 512), onCbwError: .breakSnapshot)))
    }

    static let copyOnRead = DriverUnderTest(driver: "copy-on-read", resizeUnit: 4096, isReadableReadOnly: false) { bench, byteCount in
        BlockdevOptions(.copyOnRead(BlockdevOptionsCor(file: bench.child(byteCount))))
    }

    /// Over an image with a shorter one below it, so that there is something to copy.
    static let copyOnReadOverChain = DriverUnderTest(driver: "copy-on-read", variant: "over a chain", resizeUnit: 512, isReadableReadOnly: false) { bench, byteCount in
        let top = try await makeImage(bench, byteCount, clusterSize: 65536)
        let bottom = try await makeImage(bench, byteCount / 2 / 512 * 512, clusterSize: 512)
        let backing = BlockdevOptions(.qcow2(BlockdevOptionsQcow2(file: .definition(bottom.options()), backing: .null)))
        let image = BlockdevOptions(.qcow2(BlockdevOptionsQcow2(file: .definition(top.options()), backing: .definition(backing))))
        return BlockdevOptions(.copyOnRead(BlockdevOptionsCor(file: .definition(image))))
    }

    static let preallocate = DriverUnderTest(driver: "preallocate", resizeUnit: 4096) { bench, byteCount in
        BlockdevOptions(.preallocate(BlockdevOptionsPreallocate(file: bench.child(byteCount), preallocSize: 1 << 20)))
    }

    static let preallocateSmall = DriverUnderTest(driver: "preallocate", variant: "little", resizeUnit: 4096) { bench, byteCount in
        BlockdevOptions(.preallocate(BlockdevOptionsPreallocate(file: bench.child(byteCount), preallocAlign: 512, preallocSize: 0)))
    }

    private static func throttle(_ bench: ConformanceBench, _ byteCount: Int, _ limits: ThrottleLimits) throws -> BlockdevOptions {
        try bench.graph.objects.add(try ThrottleGroup(ThrottleGroupProperties(limits: limits)), id: "group")
        return BlockdevOptions(.throttle(BlockdevOptionsThrottle(throttleGroup: "group", file: bench.child(byteCount))))
    }

    static let throttle = DriverUnderTest(driver: "throttle", resizeUnit: 4096) { bench, byteCount in
        try throttle(bench, byteCount, ThrottleLimits())
    }

    /// Limits that are reached, and high enough for a test.
    static let throttleLimited = DriverUnderTest(driver: "throttle", variant: "limited", resizeUnit: 4096) { bench, byteCount in
        try throttle(bench, byteCount, ThrottleLimits(iopsTotal: 20_000, bpsTotal: 100 << 20))
    }
}
