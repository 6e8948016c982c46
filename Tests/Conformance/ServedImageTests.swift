import StrataTesting
import Testing

/// Random writes through the daemon, against a plain array of bytes as the model.
@Suite("images written through the daemon")
struct ServedImageTests {
    @Test("random writes, zeroes and trims through a chain leave what the model says", arguments: Layout.chosen, [0, 1, 3])
    func randomWrites(layout: Layout, depth: Int) throws {
        let folder = try TemporaryFolder()
        let seed = runSeed &+ UInt64(layout.clusterSize &* 10 &+ depth)
        var generator = SeededGenerator(seed: seed)
        let size = (3 << 20) + 512 * 3
        var model = [UInt8](repeating: 0, count: size)
        if depth > 0 {
            // The bottom is QEMU's, everything above is ours.
            model = mixedContents(size, seed: seed)
            try folder.write(model, to: "bottom.raw")
            try QEMU.img("convert", "-f", "raw", "-O", "qcow2", "bottom.raw", "level0.qcow2", in: folder)
        } else {
            try Strata.mustImg("create", "-f", "qcow2", "-o", layout.options, "level0.qcow2", "\(size)", in: folder)
        }
        for level in (depth == 0 ? 0 : 1)...depth {
            let name = "level\(level).qcow2"
            if level > 0 {
                try Strata.mustImg(
                    "create", "-f", "qcow2", "-o", layout.options, "-b", "level\(level - 1).qcow2", "-F", "qcow2", name, in: folder)
            }
            let daemon = try Daemon(in: folder)
            try daemon.serve(name)
            let client = try PlainNBDClient(path: daemon.nbdPath, export: "disk")
            #expect(client.size == UInt64(size))
            try Self.change(&model, through: client, count: extendedRun ? 400 : 80, using: &generator)
            #expect(firstDifference(try client.read(size, at: 0), model) == nil, "before closing, seed \(seed)")
            try client.disconnect()
            try daemon.quit()
            try QEMU.mustFindClean(name, in: folder)
            #expect(firstDifference(try QEMU.contents(of: name, in: folder), model) == nil, "level \(level) in QEMU, seed \(seed)")
        }
        let check = try Strata.img("check", "-f", "qcow2", "level\(depth).qcow2", in: folder)
        #expect(check.succeeded, "\(check)")
    }

    private static func change(
        _ model: inout [UInt8], through client: PlainNBDClient, count: Int, using generator: inout SeededGenerator
    ) throws {
        for _ in 0..<count {
            // Half of the requests are small and unaligned, half are large.
            let longest = Bool.random(using: &generator) ? 3000 : 300_000
            let offset = Int.random(in: 0..<model.count, using: &generator)
            let length = Int.random(in: 1...min(longest, model.count - offset), using: &generator)
            switch Int.random(in: 0..<10, using: &generator) {
            case 0, 1:
                try client.writeZeroes(length, at: offset)
                model.replaceSubrange(offset..<offset + length, with: repeatElement(0, count: length))
            case 2:
                // What a trimmed range reads as is the server's choice: settle it by writing zeros after.
                try client.trim(length, at: offset)
                try client.writeZeroes(length, at: offset)
                model.replaceSubrange(offset..<offset + length, with: repeatElement(0, count: length))
            case 3:
                #expect(firstDifference(try client.read(length, at: offset), model[offset..<offset + length]) == nil)
            default:
                let data = randomBytes(length, using: &generator)
                try client.write(data, at: offset, flags: Bool.random(using: &generator) ? PlainNBDClient.fua : 0)
                model.replaceSubrange(offset..<offset + length, with: data)
            }
        }
        try client.flush()
    }
}
