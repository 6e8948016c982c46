import BlockGraph
import DriverTesting
import QCOW2
import StorageSchema

extension DriverUnderTest {
    /// Makes an empty image on a new disk.
    static func makeImage(_ bench: ConformanceBench, _ byteCount: Int, clusterSize: Int) async throws -> SimulatedDisk {
        let disk = bench.disk(0)
        try await bench.graph.add(disk.options(named: "creation"))
        let backend = try await bench.graph.makeBackend(named: "create", on: "creation", PermissionGrant(used: .all, shared: .all))
        try await QCOW2Driver.create(
            BlockdevCreateOptionsQcow2(file: .reference("creation"), size: byteCount, clusterSize: clusterSize), in: backend)
        await bench.graph.release(backend)
        try await bench.graph.remove(nodeNamed: "creation")
        return disk
    }

    static let qcow2 = DriverUnderTest(driver: "qcow2", resizeUnit: 512) { bench, byteCount in
        let disk = try await makeImage(bench, byteCount, clusterSize: 4096)
        return BlockdevOptions(.qcow2(BlockdevOptionsQcow2(file: .definition(disk.options()), backing: .null)))
    }

    static let qcow2OverBacking = DriverUnderTest(driver: "qcow2", variant: "over a shorter backing image", resizeUnit: 512) { bench, byteCount in
        let top = try await makeImage(bench, byteCount, clusterSize: 65536)
        let bottom = try await makeImage(bench, byteCount / 2 / 512 * 512, clusterSize: 512)
        let backing = BlockdevOptions(.qcow2(BlockdevOptionsQcow2(file: .definition(bottom.options()), backing: .null)))
        return BlockdevOptions(.qcow2(BlockdevOptionsQcow2(file: .definition(top.options()), backing: .definition(backing))))
    }
}
