import BlockGraph
import DriverTesting
import QCOW2
import StorageSchema

extension DriverUnderTest {
    /// Makes an empty image on a new disk.
    static func makeImage(
        _ bench: ConformanceBench, _ byteCount: Int, clusterSize: Int, hasSubclusters: Bool = false, dataFile: SimulatedDisk? = nil, isRaw: Bool = false, encrypt: QCryptoBlockCreateOptions? = nil
    ) async throws -> SimulatedDisk {
        let disk = bench.disk(0)
        try await bench.graph.add(disk.options(named: "creation"))
        let backend = try await bench.graph.makeBackend(named: "create", on: "creation", PermissionGrant(used: .all, shared: .all))
        var data: BlockBackend?
        if let dataFile {
            try await bench.graph.add(dataFile.options(named: "data-creation"))
            data = try await bench.graph.makeBackend(named: "create data", on: "data-creation", PermissionGrant(used: .all, shared: .all))
        }
        try await QCOW2Driver.create(
            BlockdevCreateOptionsQcow2(
                file: .reference("creation"), dataFile: dataFile == nil ? nil : .reference("data-creation"), dataFileRaw: isRaw, extendedL2: hasSubclusters,
                size: byteCount, encrypt: encrypt, clusterSize: clusterSize), in: backend, dataFile: data, password: encrypt == nil ? nil : EncryptionRows.password)
        await bench.graph.release(backend)
        try await bench.graph.remove(nodeNamed: "creation")
        if let data {
            await bench.graph.release(data)
            try await bench.graph.remove(nodeNamed: "data-creation")
        }
        return disk
    }

    static let qcow2 = DriverUnderTest(driver: "qcow2", resizeUnit: 512) { bench, byteCount in
        let disk = try await makeImage(bench, byteCount, clusterSize: 4096)
        return BlockdevOptions(.qcow2(BlockdevOptionsQcow2(file: .definition(disk.options()), backing: .null)))
    }

    static let qcow2WithSubclusters = DriverUnderTest(driver: "qcow2", variant: "with subclusters, over a shorter backing image", resizeUnit: 512) { bench, byteCount in
        let top = try await makeImage(bench, byteCount, clusterSize: 16384, hasSubclusters: true)
        let bottom = try await makeImage(bench, byteCount / 2 / 512 * 512, clusterSize: 16384, hasSubclusters: true)
        let backing = BlockdevOptions(.qcow2(BlockdevOptionsQcow2(file: .definition(bottom.options()), backing: .null)))
        return BlockdevOptions(.qcow2(BlockdevOptionsQcow2(file: .definition(top.options()), backing: .definition(backing))))
    }

    static let qcow2WithDataFile = DriverUnderTest(driver: "qcow2", variant: "with a data file", resizeUnit: 512) { bench, byteCount in
        let data = bench.disk(0)
        let disk = try await makeImage(bench, byteCount, clusterSize: 4096, dataFile: data)
        return BlockdevOptions(.qcow2(BlockdevOptionsQcow2(file: .definition(disk.options()), backing: .null, dataFile: .definition(data.options()))))
    }

    static let qcow2WithRawDataFile = DriverUnderTest(driver: "qcow2", variant: "with a raw data file", resizeUnit: 512) { bench, byteCount in
        let data = bench.disk(0)
        let disk = try await makeImage(bench, byteCount, clusterSize: 4096, dataFile: data, isRaw: true)
        return BlockdevOptions(.qcow2(BlockdevOptionsQcow2(file: .definition(disk.options()), backing: .null, dataFile: .definition(data.options()))))
    }

    static let qcow2OverBacking = DriverUnderTest(driver: "qcow2", variant: "over a shorter backing image", resizeUnit: 512) { bench, byteCount in
        let top = try await makeImage(bench, byteCount, clusterSize: 65536)
        let bottom = try await makeImage(bench, byteCount / 2 / 512 * 512, clusterSize: 512)
        let backing = BlockdevOptions(.qcow2(BlockdevOptionsQcow2(file: .definition(bottom.options()), backing: .null)))
        return BlockdevOptions(.qcow2(BlockdevOptionsQcow2(file: .definition(top.options()), backing: .definition(backing))))
    }
}
