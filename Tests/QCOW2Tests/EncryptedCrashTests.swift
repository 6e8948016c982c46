import BlockEncryption
import BlockGraph
import Foundation
import IOCore
import ManagedObjects
import QCOW2
import QCOW2Testing
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

/// Encrypted images over a disk that loses and tears what was not flushed, and over one that fails.
@Suite("encrypted qcow2 after crashes and failures")
struct EncryptedCrashTests {
    private static func opening() throws -> CrashTests.Opening {
        let opening = CrashTests.Opening(secret: "old")
        for name in ["old", "new"] { try opening.objects.add(try Secret(SecretProperties(data: name), in: opening.objects), id: name) }
        return opening
    }

    /// An empty image by us.
    private static func create(size: Int, clusterSize: Int) async throws -> [UInt8] {
        let recorder = Recorder(disk: [])
        defer { recorder.forget() }
        try await onContext { context in
            let graph = BlockGraph(context: context, drivers: DriverRegistry(testDrivers))
            try await graph.add(BlockdevOptions(.nullCo(BlockdevOptionsNull(size: recorder.number)), nodeName: "file"))
            let backend = try await graph.makeBackend(named: "create", on: "file", PermissionGrant(used: .all, shared: .all))
            let encryption = QCryptoBlockCreateOptions(.luks(QCryptoBlockCreateOptionsLUKS(keySecret: "old", cipherAlg: .aes128, iterTime: 0)))
            try await QCOW2Driver.create(
                BlockdevCreateOptionsQcow2(file: .reference("file"), size: size, encrypt: encryption, clusterSize: clusterSize), in: backend, password: Array("old".utf8))
            await graph.release(backend)
            try await graph.closeAll()
        }
        return recorder.state.withLock { $0.disk }
    }

    private static func changeKeys(_ disk: BlockBackend, _ options: QCryptoBlockAmendOptionsLUKS) async throws {
        guard let amending = disk.node.driver as? any KeySlotAmending else { throw ToolFailure(description: "no key slots") }
        try await amending.changeKeySlots(try KeySlotChange(options, isForced: false) { id throws(BlockError) in Array(id.utf8) })
    }

    @Test("no crash while it is written to and its keys change loses flushed data, the key or the image", arguments: [512, 4096, 65536])
    func anyCrash(clusterSize: Int) async throws {
        let scratch = try Scratch()
        let size = 24 * clusterSize
        let initial = try await Self.create(size: size, clusterSize: clusterSize)
        let opening = try Self.opening()
        let recorder = Recorder(disk: initial)
        defer { recorder.forget() }
        let steps = try await onContext { context in
            try await withImage(opening.options(recorder, l2CacheSize: 8192), context, objects: opening.objects) { disk in
                var steps: [CrashTests.Step] = []
                let changes: [QCryptoBlockAmendOptionsLUKS?] = [
                    .init(state: .active, newSecret: "new", iterTime: 0), .init(state: .inactive, oldSecret: "new"), nil,
                ]
                for (round, change) in changes.enumerated() {
                    let model = DiskModel(size: size, clusterSize: clusterSize, seed: UInt64(clusterSize + round))
                    steps += try await CrashTests.play(disk, recorder, model, 12)
                    if let change { try await Self.changeKeys(disk, change) }
                }
                return steps
            }
        }
        let log = recorder.state.withLock { $0.log }
        var random = SeededGenerator(seed: UInt64(clusterSize))
        var states: [[UInt8]] = []
        for point in stride(from: 1, through: log.count, by: max(1, log.count / 80)) {
            let disk = CrashTests.crash(initial, log[..<point], &random)
            states.append(disk)
            let problem = try await onContext { context in
                try await CrashTests.judge(disk, point, steps, [UInt8](repeating: 0, count: size), context, opening)
            }
            if let problem { throw ToolFailure(description: "crash after \(point) of \(log.count) host operations: \(problem)") }
        }
        // QEMU opens them with the password that was there all the time.
        let path = scratch.file("crashed.qcow2")
        for state in [states.count / 3, states.count / 2, states.count - 1] {
            try Data(states[state]).write(to: URL(fileURLWithPath: path))
            let image = "driver=qcow2,encrypt.format=luks,encrypt.key-secret=old,file.filename=\(path)"
            try run("qemu-img", ["check", "--object", "secret,id=old,data=old", "--image-opts", image], allowedStatus: [0, 3])
            try run("qemu-io", ["-r", "--object", "secret,id=old,data=old", "--image-opts", "-c", "read 0 \(size)", image])
        }
    }

    @Test("a host operation that fails costs no acknowledged data and leaves a consistent image", arguments: [512, 65536])
    func everyFailure(clusterSize: Int) async throws {
        let size = 24 * clusterSize
        let initial = try await Self.create(size: size, clusterSize: clusterSize)
        let opening = try Self.opening()
        try await onContext { context in
            for failAt in 1...50 {
                let model = DiskModel(size: size, clusterSize: clusterSize, seed: UInt64(failAt))
                if let problem = try await CrashTests.failOnce(failAt * 2, initial, model, context, opening) {
                    throw ToolFailure(description: "host operation \(failAt * 2) fails: \(problem)")
                }
            }
        }
    }
}
