import Foundation
import StrataTesting
import Testing

/// Compressed backups into images that hold something already, which QEMU's daemon fails with an I/O error.
@Suite("compressed backups over data")
struct CompressedBackupTests {
    private static let size = 8 << 20

    @Test("a compressed backup writes over what the target holds: data, zeroes, and an older compressed backup", arguments: [4096, 65536, 2 << 20], [1 << 9, 1 << 16])
    func overData(targetCluster: Int, sourceCluster: Int) throws {
        let folder = try TemporaryFolder()
        var random = SeededGenerator(seed: runSeed)
        try QEMU.img("create", "-q", "-f", "qcow2", "-o", "cluster_size=\(sourceCluster)", "disk.qcow2", "\(Self.size)", in: folder)
        try QEMU.img("create", "-q", "-f", "qcow2", "-o", "cluster_size=\(targetCluster)", "target.qcow2", "\(Self.size)", in: folder)
        // What cannot be compressed, what can, and zeroes; above them other such parts.
        for image in ["disk", "target"] {
            try Data(randomBytes(1 << 20, using: &random)).write(to: folder.url.appending(path: "noise"))
            try QEMU.io(
                "\(image).qcow2",
                image == "disk" ? ["write -s noise 0 1M", "write -P 3 2M 1M", "write -z 3M 1M", "write -P 5 5000000 12345"]
                    : ["write -P 9 0 1536k", "write -s noise 2500k 1M", "write -P 8 6M 1M", "write -z 7M 64k"], in: folder)
        }
        let stage = try JobStage(nil, in: folder)
        for name in ["disk", "target"] { try stage.must("blockdev-add", ChainImages.node(name)) }
        try stage.must("nbd-server-start", ["addr": ["type": "unix", "data": ["path": .string(stage.daemon.nbdPath)]]])
        try stage.must("block-export-add", ["type": "nbd", "id": "disk", "node-name": "disk", "name": "disk", "writable": true])
        try stage.must("block-dirty-bitmap-add", ["node": "disk", "name": "b"])
        func backUp(_ number: Int, _ more: [String: JSON]) throws {
            let arguments: [String: JSON] = ["job-id": "j", "device": "disk", "target": "target", "compress": true]
            try stage.must("blockdev-backup", .object(arguments.merging(more) { $1 }))
            try stage.wait(for: "j null", times: number)
            // An error would stand at the end.
            #expect(stage.told.allSatisfy { !$0.hasPrefix("j BLOCK_JOB_COMPLETED") || $0.hasSuffix(" ") }, "\(stage.told)")
            try mustRun("qemu-img", ["compare", "-U", "-f", "raw", "-F", "qcow2", stage.daemon.uri("disk"), "target.qcow2"], in: folder.url)
        }
        try backUp(1, ["sync": "full"])
        try backUp(2, ["sync": "full"])
        let client = try PlainNBDClient(path: stage.daemon.nbdPath, export: "disk")
        try client.write([UInt8](repeating: 7, count: 100_000), at: 1_500_000)
        try client.writeZeroes(300_000, at: 100_000)
        try client.disconnect()
        try backUp(3, ["sync": "incremental", "bitmap": "b"])
        try stage.daemon.quit()
        let check = try QEMU.mustFindClean("target.qcow2", in: folder)
        #expect((check["compressed-clusters"]?.integer ?? 0) > 0)
    }
}
