import Foundation
import StrataTesting
import Testing

/// Dirty bitmaps under writes, in memory and in images, beside QEMU's.
@Suite("dirty bitmaps")
struct DirtyBitmapTests {
    private static let size = 8 << 20

    private static func daemon(_ program: String?, _ image: String, in folder: TemporaryFolder, format: String = "qcow2") throws -> Daemon {
        let daemon = try Daemon(nbd: true, program: program, in: folder)
        try daemon.monitor.execute(
            "blockdev-add",
            [
                "driver": .string(format), "node-name": "disk", "discard": "unmap", "detect-zeroes": "on",
                "file": ["driver": "file", "filename": .string(image), "discard": "unmap"],
            ])
        return daemon
    }

    private static func export(_ daemon: Daemon) throws -> PlainNBDClient {
        try daemon.monitor.execute("block-export-add", ["type": "nbd", "id": "disk", "node-name": "disk", "name": "disk", "writable": true])
        return try PlainNBDClient(path: daemon.nbdPath, export: "disk")
    }

    /// The bitmaps of the disk with their digests, in the order of their names.
    private static func bitmaps(_ daemon: Daemon) throws -> [String] {
        let nodes = try daemon.monitor.execute("query-named-block-nodes", ["flat": true]).array ?? []
        let disk = nodes.first { $0["node-name"]?.string == "disk" }
        return try (disk?["dirty-bitmaps"]?.array ?? []).map { bitmap in
            let name = bitmap["name"]?.string ?? ""
            var text = "\(name)"
            for key in ["count", "granularity", "recording", "busy", "persistent", "inconsistent"] { text += " \(key)=\(try bitmap[key].map { String(decoding: try $0.encoded(), as: UTF8.self) } ?? "-")" }
            if bitmap["inconsistent"] == nil {
                text += " \(try daemon.monitor.execute("x-debug-block-dirty-bitmap-sha256", ["node": "disk", "name": .string(name)])["sha256"]?.string ?? "")"
            }
            return text
        }.sorted()
    }

    /// Random requests of every kind.
    private static func write(_ client: PlainNBDClient, _ random: inout SeededGenerator, rounds: Int) throws {
        for _ in 0..<rounds {
            let offset = Int.random(in: 0..<size / 512 - 1, using: &random) * 512
            let count = min(size - offset, Int.random(in: 1...(Bool.random(using: &random) ? 20 : 600), using: &random) * 512)
            switch Int.random(in: 0..<6, using: &random) {
            case 0: try client.writeZeroes(count, at: offset)
            case 1: try client.trim(count, at: offset)
            case 2: try client.write([UInt8](repeating: 0, count: count), at: offset)
            case 3: try client.flush()
            default: try client.write([UInt8](repeating: UInt8.random(in: 1...255, using: &random), count: count), at: offset)
            }
        }
    }

    /// A script of writes and bitmap commands; its text and the state of the bitmaps after each step.
    private static func history(_ daemon: Daemon, _ client: PlainNBDClient, seed: UInt64, isPersistent: Bool) throws -> [String] {
        var random = SeededGenerator(seed: seed)
        var log: [String] = []
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        var names = try bitmaps(daemon).map { String($0.prefix { $0 != " " }) }
        for step in 0..<12 {
            try write(client, &random, rounds: Int.random(in: 0...6, using: &random))
            let chosen = names.randomElement(using: &random)
            var command = "block-dirty-bitmap-add"
            var arguments: JSON
            switch (Int.random(in: 0..<10, using: &random), chosen) {
            case (0, let name?): (command, arguments) = ("block-dirty-bitmap-clear", ["node": "disk", "name": .string(name)])
            case (1, let name?): (command, arguments) = ("block-dirty-bitmap-disable", ["node": "disk", "name": .string(name)])
            case (2, let name?): (command, arguments) = ("block-dirty-bitmap-enable", ["node": "disk", "name": .string(name)])
            case (3, let name?):
                (command, arguments) = ("block-dirty-bitmap-remove", ["node": "disk", "name": .string(name)])
                names.removeAll { $0 == name }
            case (4...5, let name?):
                let source = names.randomElement(using: &random) ?? name
                (command, arguments) = ("block-dirty-bitmap-merge", ["node": "disk", "target": .string(name), "bitmaps": [.string(source)]])
            default:
                let name = "b\(seed)-\(step)"
                arguments = [
                    "node": "disk", "name": .string(name), "granularity": .integer(512 << Int.random(in: 0...9, using: &random)),
                    "persistent": .bool(isPersistent), "disabled": .bool(Int.random(in: 0..<4, using: &random) == 0),
                ]
                names.append(name)
            }
            var answer = "done"
            do { try daemon.monitor.execute(command, arguments) } catch { answer = "\(error)" }
            let text = String(decoding: try encoder.encode(arguments), as: UTF8.self)
            log.append("\(command) \(text) -> \(answer): \(try bitmaps(daemon))")
        }
        return log
    }

    @Test("the same writes and commands make the same bitmaps in both daemons", arguments: 0..<(extendedRun ? 40 : 4) as Range<UInt64>)
    func sameAsQEMU(seed: UInt64) throws {
        var logs: [[String]] = []
        for program in [nil, "qemu-storage-daemon"] {
            let folder = try TemporaryFolder()
            try QEMU.img("create", "-f", "qcow2", "disk.qcow2", "\(Self.size)", in: folder)
            let daemon = try Self.daemon(program, "disk.qcow2", in: folder)
            let client = try Self.export(daemon)
            logs.append(try Self.history(daemon, client, seed: seed, isPersistent: false))
            try client.disconnect()
            try daemon.quit()
        }
        for (ours, theirs) in zip(logs[0], logs[1]) { #expect(ours == theirs, "seed \(seed)") }
    }

    /// One image goes back and forth between the two, each going on where the other has left it; a second one belongs to QEMU alone.
    @Test("bitmaps in an image live through restarts, ours and QEMU's in turn", arguments: [512, 4096, 65536, 2 << 20], 0..<(extendedRun ? 10 : 1) as Range<UInt64>)
    func backAndForth(clusterSize: Int, round: UInt64) throws {
        let (shared, alone) = (try TemporaryFolder(), try TemporaryFolder())
        for folder in [shared, alone] {
            try QEMU.img("create", "-f", "qcow2", "-o", "cluster_size=\(clusterSize)", "disk.qcow2", "\(Self.size)", in: folder)
            try QEMU.img("bitmap", "--add", "-g", "4096", "disk.qcow2", "first", in: folder)
        }
        for turn in 0..<6 as Range<UInt64> {
            var logs: [[String]] = []
            for (folder, program) in [(shared, turn % 2 == 0 ? nil : "qemu-storage-daemon"), (alone, "qemu-storage-daemon")] {
                let daemon = try Self.daemon(program, "disk.qcow2", in: folder)
                let found = try Self.bitmaps(daemon)
                let client = try Self.export(daemon)
                logs.append([ "\(found)" ] + (try Self.history(daemon, client, seed: 100 * round + turn, isPersistent: true)))
                try client.disconnect()
                try daemon.quit()
                try QEMU.mustFindClean("disk.qcow2", in: folder)
                let ours = try Strata.img("check", "-f", "qcow2", "disk.qcow2", in: folder)
                #expect(ours.ending == .exited(0), "\(ours)")
            }
            for (ours, theirs) in zip(logs[0], logs[1]) { #expect(ours == theirs, "turn \(turn), round \(round)") }
        }
    }
}
