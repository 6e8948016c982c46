import BlockGraph
import Foundation
import StorageSchema

extension DriverUnderTest {
    /// Makes an empty file of that size.
    private static func makeFile(_ bench: ConformanceBench, _ byteCount: Int) throws -> String {
        let path = try bench.folder() + "/disk"
        _ = FileManager.default.createFile(atPath: path, contents: nil)
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        try handle.truncate(atOffset: UInt64(byteCount))
        try handle.close()
        return path
    }

    static let file = DriverUnderTest(driver: "file", resizeUnit: 512, hasSimulatedDisks: false) { bench, byteCount in
        BlockdevOptions(.file(BlockdevOptionsFile(filename: try makeFile(bench, byteCount))))
    }

    static let fileDirect = DriverUnderTest(driver: "file", variant: "direct", resizeUnit: 4096, hasSimulatedDisks: false, sizeUnit: 4096) { bench, byteCount in
        BlockdevOptions(.file(BlockdevOptionsFile(filename: try makeFile(bench, byteCount))), cache: BlockdevCacheOptions(direct: true))
    }

    /// A server that insists on the alignment of the case.
    static let nbd = DriverUnderTest(driver: "nbd", canResize: false, hasSimulatedDisks: false, sizeUnit: 4096) { bench, byteCount in
        let socket = try bench.folder() + "/socket"
        let unit = bench.current.alignment
        try bench.serve(
            "nbdkit",
            ["-f", "-U", socket, "--filter=blocksize-policy", "memory", "\(byteCount)", "blocksize-minimum=\(unit)", "blocksize-preferred=4096",
             "blocksize-maximum=64k", "blocksize-error-policy=error"], socket: socket)
        return BlockdevOptions(.nbd(BlockdevOptionsNbd(server: SocketAddress(.unix(UnixSocketAddress(path: socket))))))
    }

    static let nullAio = DriverUnderTest(driver: "null-aio", keepsData: false, canResize: false, hasSimulatedDisks: false) { _, byteCount in
        BlockdevOptions(.nullAio(BlockdevOptionsNull(size: byteCount, latencyNs: 1000)))
    }

    static let nullCo = DriverUnderTest(driver: "null-co", keepsData: false, canResize: false, hasSimulatedDisks: false) { _, byteCount in
        BlockdevOptions(.nullCo(BlockdevOptionsNull(size: byteCount)))
    }
}
