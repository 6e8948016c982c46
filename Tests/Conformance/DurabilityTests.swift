import Foundation
import StrataTesting
import Testing

@Suite("durability")
struct DurabilityTests {
    /// Writes with forced unit access, or flushed, are there after SIGKILL; the image is clean apart from leaks.
    @Test("no acknowledged write is lost when the daemon is killed", arguments: Layout.few, 0..<(extendedRun ? 12 : 2))
    func killed(layout: Layout, round: Int) throws {
        let folder = try TemporaryFolder()
        let seed = runSeed &+ UInt64(layout.clusterSize &+ round)
        var generator = SeededGenerator(seed: seed)
        let size = 4 << 20
        var model = mixedContents(size, seed: seed)
        try folder.write(model, to: "base.raw")
        try QEMU.img("convert", "-f", "raw", "-O", "qcow2", "base.raw", "base.qcow2", in: folder)
        try Strata.mustImg("create", "-f", "qcow2", "-o", layout.options, "-b", "base.qcow2", "-F", "qcow2", "disk.qcow2", in: folder)
        let daemon = try Daemon(in: folder)
        try daemon.serve("disk.qcow2")
        let client = try PlainNBDClient(path: daemon.nbdPath, export: "disk")

        // Acknowledged and durable: each with FUA, or made durable by the flush that ends a group.
        for _ in 0..<30 {
            let withFUA = Bool.random(using: &generator)
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                let offset = Int.random(in: 0..<size - 1, using: &generator)
                let data = randomBytes(Int.random(in: 1...min(100_000, size - offset), using: &generator), using: &generator)
                try client.write(data, at: offset, flags: withFUA ? PlainNBDClient.fua : 0)
                model.replaceSubrange(offset..<offset + data.count, with: data)
            }
            if !withFUA { try client.flush() }
        }
        // In flight when the end comes: these places may hold the old or the new, and nothing else may change.
        var uncertain = IndexSet()
        var attempted = model
        for cookie in 0..<24 {
            let offset = Int.random(in: 0..<size - 70_000, using: &generator)
            let data = randomBytes(Int.random(in: 1...70_000, using: &generator), using: &generator)
            if uncertain.intersects(integersIn: offset..<offset + data.count) { continue }
            try client.submit(.write, cookie: UInt64(cookie), offset: offset, length: data.count, data: data)
            uncertain.insert(integersIn: offset..<offset + data.count)
            attempted.replaceSubrange(offset..<offset + data.count, with: data)
        }
        daemon.process.send(SIGKILL)
        let finished = try daemon.process.wait()
        #expect(finished.ending == .signalled(SIGKILL))
        try OpenFiles.waitUntilUnlocked(folder.path("disk.qcow2"))

        try QEMU.mustFindClean("disk.qcow2", in: folder, allowingLeaks: true)
        let ours = try Strata.img("check", "-f", "qcow2", "disk.qcow2", in: folder)
        #expect([.exited(0), .exited(3)].contains(ours.ending), "\(ours)")
        let found = try QEMU.contents(of: "disk.qcow2", in: folder)
        // A torn write mixes old and new bytes of one request, never others.
        var settled = found
        for range in uncertain.rangeView {
            for index in range where found[index] == attempted[index] { settled[index] = model[index] }
        }
        #expect(firstDifference(settled, model) == nil, "seed \(seed): found what was neither acknowledged nor in flight")

        // And the image goes on being used.
        let second = try Daemon(in: folder)
        try second.serve("disk.qcow2")
        let again = try PlainNBDClient(path: second.nbdPath, export: "disk")
        #expect(firstDifference(try again.read(size, at: 0), found) == nil, "seed \(seed)")
        try again.write(model, at: 0)
        try again.disconnect()
        try second.quit()
        try QEMU.mustFindClean("disk.qcow2", in: folder, allowingLeaks: true)
        #expect(firstDifference(try QEMU.contents(of: "disk.qcow2", in: folder), model) == nil, "seed \(seed)")
    }
}
