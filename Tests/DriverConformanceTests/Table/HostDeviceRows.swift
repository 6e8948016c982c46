import BlockGraph
import Foundation
import StorageSchema
import StrataTesting

extension DriverUnderTest {
    private static func makeDevice(_ bench: ConformanceBench, _ byteCount: Int) throws -> String {
        let path = try bench.folder() + "/device"
        _ = FileManager.default.createFile(atPath: path, contents: nil)
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        try handle.truncate(atOffset: UInt64(byteCount))
        try handle.close()
        let device = try LoopDevice(over: path, sectorSize: max(bench.current.alignment, 512))
        bench.atEnd { device.detach() }
        return device.path
    }

    static let hostDevice = DriverUnderTest(driver: "host_device", canResize: false, hasSimulatedDisks: false, sizeUnit: 4096) { bench, byteCount in
        BlockdevOptions(.hostDevice(BlockdevOptionsFile(filename: try makeDevice(bench, byteCount))))
    }

    static let hostDeviceDirect = DriverUnderTest(driver: "host_device", variant: "direct", canResize: false, hasSimulatedDisks: false, sizeUnit: 4096) { bench, byteCount in
        BlockdevOptions(.hostDevice(BlockdevOptionsFile(filename: try makeDevice(bench, byteCount))), cache: BlockdevCacheOptions(direct: true))
    }
}
