import Foundation
import StrataTesting
import Testing

/// Targets that somebody else has made: block devices and NBD exports. They keep their length, and what they held is not zero.
@Suite("create, convert and dd into a device or an NBD export do what qemu-img does", .serialized)
struct InPlaceTargetTests {
    private static let size = 4 << 20

    /// Runs each command with both programs on a target full of other data, and compares answers and what the guest reads then.
    /// - Parameters:
    ///   - target: the name of what `disk` is behind.
    ///   - commands: `@` stands for the target; with the format to read it in, nil when it is refused.
    private static func compare(_ commands: [(line: String, format: String?)], to target: String, over disk: String, _ pair: ToolPair) throws {
        try pair.prepare([
            ["create", "-q", "-f", "raw", "in.raw", "1M"], ["io", "-f", "raw", "-c", "write -q -P 3 100k 300k", "in.raw"],
            ["create", "-q", "-f", "qcow2", "in.qcow2", "3M"], ["io", "-c", "write -q -P 4 1M 200k", "in.qcow2"],
        ])
        for (line, format) in commands {
            func result(_ run: ([String]) throws -> ToolPair.Outcome) throws -> (ToolPair.Outcome, [UInt8]) {
                try [UInt8](repeating: 0xEE, count: size).withUnsafeBytes { try Data($0).write(to: URL(filePath: disk), options: []) }
                let outcome = try run(line.split(separator: " ").map { String($0).replacing("@", with: target) })
                guard let format else { return (outcome, []) }
                let copy = pair.root.appendingPathComponent("copy").path
                try mustRun("qemu-img", ["convert", "-f", format, "-O", "raw", target, copy], atMost: .seconds(60))
                let contents = [UInt8](try Data(contentsOf: URL(filePath: copy)))
                return (outcome, contents)
            }
            let theirs = try result(pair.runTheirs)
            let ours = try result(pair.runOurs)
            #expect(ours.0 == theirs.0, "qemu-img \(line)")
            #expect(firstDifference(ours.1, theirs.1) == nil, "qemu-img \(line)")
        }
    }

    @Test("a block device")
    func device() throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        let disk = pair.root.appendingPathComponent("disk").path
        try Data(count: Self.size).write(to: URL(filePath: disk))
        let device = try LoopDevice(over: disk)
        defer { device.detach() }
        try Self.compare(
            [
                ("convert -O raw in.raw @", "raw"), ("convert -f qcow2 -O raw in.qcow2 @", "raw"), ("convert -O qcow2 in.raw @", "qcow2"),
                ("convert -O qcow2 -o preallocation=metadata in.qcow2 @", "qcow2"), ("create -f qcow2 @ 2M", "qcow2"), ("create -f raw @ 1M", "raw"),
                ("create -f raw @ 8M", nil), ("create -f raw -o preallocation=full @ 1M", nil), ("dd if=in.raw of=@ bs=1M", "raw"),
                ("dd -f qcow2 -O qcow2 if=in.qcow2 of=@ bs=64k", "qcow2"), ("create -q -f qcow2 -b \(pair.root.path)/theirs/in.raw -F raw @ 2M", "qcow2"),
                ("convert -n -O raw in.raw @", "raw"), ("resize -f raw @ 8M", nil),
            ], to: device.path, over: device.path, pair)
        // A full device is a full disk to whoever matches the words.
        try pair.prepare([["create", "-q", "-f", "raw", "large.raw", "8M"], ["io", "-f", "raw", "-c", "write -q -P 5 0 8M", "large.raw"]])
        try mustRun("qemu-img", ["create", "-q", "-f", "qcow2", device.path, "8M"], atMost: .seconds(60))
        let full = try pair.runOurs(["convert", "-n", "-O", "qcow2", "large.raw", device.path])
        #expect(full.status == 1 && full.errors.contains("No space left on device"), "\(full)")
    }

    @Test("an NBD export, which may not be there")
    func export() throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        let (disk, socket) = (pair.root.appendingPathComponent("disk").path, pair.root.appendingPathComponent("s").path)
        try Data(count: Self.size).write(to: URL(filePath: disk))
        let server = try ChildProcess("qemu-nbd", ["-t", "-f", "raw", "-k", socket, disk], in: pair.root)
        defer { server.send(SIGKILL) }
        #expect(waitUntil { FileManager.default.fileExists(atPath: socket) })
        let commands: [(String, String?)] = [
            ("convert -O raw in.raw @", "raw"), ("convert -O qcow2 in.qcow2 @", "qcow2"), ("create -f qcow2 @ 512k", "qcow2"), ("create -f raw @ 1M", "raw"),
            ("create -f raw @ 8M", nil), ("dd if=in.raw of=@ bs=1M", "raw"), ("resize -f raw @ 8M", nil), ("resize -f raw --shrink @ 1M", nil),
            ("info --output=json -f raw @", nil), ("info --output=json @", nil),
        ]
        for target in ["nbd:unix:\(socket)", "nbd+unix:///?socket=\(socket)"] { try Self.compare(commands, to: target, over: disk, pair) }
        for name in ["nbd:unix:/nosock", "''"] {
            let arguments = ["create", "-f", "qcow2", name == "''" ? "" : name, "1M"]
            #expect(try pair.runOurs(arguments) == pair.runTheirs(arguments), "\(name)")
        }
    }
}
