import BlockEncryption
import BlockGraph
import DriverTesting
import IOCore
import ManagedObjects
import StorageSchema
import StrataBase

enum EncryptionRows {
    static let password = Array("open sesame".utf8)

    static func addSecret(_ bench: ConformanceBench) throws {
        try bench.graph.objects.add(try Secret(SecretProperties(data: String(decoding: password, as: UTF8.self)), in: bench.graph.objects), id: "key")
    }

    /// A disk that shows zeroes: a new one shows anything.
    static func makeDisk(_ bench: ConformanceBench, _ byteCount: Int) async throws -> BlockdevOptions {
        let disk = bench.disk(0)
        try await bench.graph.add(disk.options(named: "creation"))
        let backend = try await bench.graph.makeBackend(named: "create", on: "creation", PermissionGrant(used: .all, shared: .all))
        try await LUKSDriver.create(BlockdevCreateOptionsLUKS(keySecret: "key", iterTime: 0, size: byteCount), password: password, in: backend)
        await bench.graph.release(backend)
        try await bench.graph.remove(nodeNamed: "creation")
        var options = BlockdevOptions(.luks(BlockdevOptionsLUKS(file: .definition(disk.options()), keySecret: "key")))
        options.nodeName = "clearing"
        try await bench.graph.add(options)
        let luks = try await bench.graph.makeBackend(named: "clear", on: "clearing", PermissionGrant(used: .all, shared: .all))
        let zeroes = IOBuffer(zeroed: luks.length)
        try await luks.write(zeroes.vector, at: GuestOffset(0))
        try await luks.flush()
        withExtendedLifetime(zeroes) {}
        await bench.graph.release(luks)
        try await bench.graph.remove(nodeNamed: "clearing")
        options.nodeName = nil
        return options
    }
}

extension DriverUnderTest {
    static let luks = DriverUnderTest(driver: "luks", growsWithZeroes: false, resizeUnit: 4096) { bench, byteCount in
        try EncryptionRows.addSecret(bench)
        return try await EncryptionRows.makeDisk(bench, byteCount)
    }

    static let qcow2Encrypted = DriverUnderTest(driver: "qcow2", variant: "encrypted", resizeUnit: 512) { bench, byteCount in
        try EncryptionRows.addSecret(bench)
        let encryption = QCryptoBlockCreateOptions(.luks(QCryptoBlockCreateOptionsLUKS(keySecret: "key", iterTime: 0)))
        let disk = try await makeImage(bench, byteCount, clusterSize: 4096, encrypt: encryption)
        let key = BlockdevQcow2Encryption(.luks(QCryptoBlockOptionsLUKS(keySecret: "key")))
        return BlockdevOptions(.qcow2(BlockdevOptionsQcow2(file: .definition(disk.options()), backing: .null, encrypt: key)))
    }
}
