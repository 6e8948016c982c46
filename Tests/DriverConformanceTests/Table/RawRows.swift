import BlockGraph
import StorageSchema

extension DriverUnderTest {
    static let raw = DriverUnderTest(driver: "raw", resizeUnit: 4096) { bench, byteCount in
        BlockdevOptions(.raw(BlockdevOptionsRaw(file: bench.child(byteCount))))
    }

    /// A window that begins and ends in the middle of the units of the disk below.
    static let rawWindow = DriverUnderTest(driver: "raw", variant: "window", canResize: false) { bench, byteCount in
        BlockdevOptions(.raw(BlockdevOptionsRaw(file: bench.child(byteCount + 8192), offset: 1536, size: byteCount - 512)))
    }
}
