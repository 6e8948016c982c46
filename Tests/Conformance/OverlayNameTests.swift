import Foundation
import StrataTesting
import Testing

@Suite("names and sizes that an overlay gets")
struct OverlayNameTests {
    @Test("a backing file that was given by a relative name is found from wherever the overlay lies")
    func relativeNames() throws {
        let folder = try TemporaryFolder()
        try FileManager.default.createDirectory(atPath: folder.path("sub"), withIntermediateDirectories: false)
        try folder.write(mixedContents(1 << 20, seed: runSeed), to: "disk.raw")
        let daemon = try Daemon(in: folder)
        try daemon.monitor.execute("blockdev-add", ["driver": "raw", "node-name": "n0", "file": ["driver": "file", "filename": "disk.raw"]])
        // An overlay that nobody uses is gone again at once.
        try daemon.monitor.execute("block-export-add", ["type": "nbd", "id": "e", "node-name": "n0"])
        for (number, name, stored) in [(1, "one.qcow2", "disk.raw"), (2, "sub/two.qcow2", folder.path("one.qcow2"))] {
            try daemon.monitor.execute(
                "blockdev-snapshot-sync",
                ["node-name": .string("n\(number - 1)"), "snapshot-file": .string(name), "snapshot-node-name": .string("n\(number)"), "format": "qcow2"])
            let described = try JSON(parsing: mustRun("qemu-img", ["info", "-U", "--output=json", name], in: folder.url).output)
            #expect(described["backing-filename"]?.string == stored)
        }
        try daemon.quit()
        let compared = try mustRun("qemu-img", ["compare", "-f", "qcow2", "-F", "raw", folder.path("sub/two.qcow2"), folder.path("disk.raw")])
        #expect(compared.text == "Images are identical.\n")
    }

    @Test("an overlay of a disk that ends inside a sector has whole sectors")
    func oddSize() throws {
        let daemon = try Daemon(nbd: false, in: try TemporaryFolder())
        try daemon.monitor.execute("blockdev-add", ["driver": "null-co", "node-name": "n", "size": 1000, "read-zeroes": true])
        try daemon.monitor.execute(
            "blockdev-snapshot-sync", ["node-name": "n", "snapshot-file": "over.qcow2", "snapshot-node-name": "o", "format": "qcow2"])
        let described = try JSON(parsing: mustRun("qemu-img", ["info", "-U", "--output=json", "over.qcow2"], in: daemon.folder.url).output)
        #expect(described["virtual-size"]?.integer == 1024)
        try daemon.quit()
    }
}
