import Foundation
import StrataTesting
import Testing

/// A reader of dm-log-writes logs that knows the kernel's description of the format and nothing of the product.
struct LogReader {
    struct Entry: Equatable, CustomStringConvertible {
        var sector: UInt64, sectorCount: UInt64, flags: UInt64
        var data: ArraySlice<UInt8>
        var description: String { "\(sector)+\(sectorCount) flags \(flags), \(data.count) bytes" }
    }

    let sectorSize: Int
    var entries: [Entry] = []

    init(_ log: [UInt8]) throws {
        func integer(_ offset: Int, _ size: Int) throws -> UInt64 {
            guard offset + size <= log.count else { throw HarnessError("the log ends at \(log.count)") }
            return log[offset..<offset + size].reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
        guard try integer(0, 8) == 0x6a73_6677_7368_72, try integer(8, 8) == 1 else { throw HarnessError("this is no log") }
        sectorSize = Int(try integer(24, 4))
        var position = sectorSize
        for _ in 0..<(try integer(16, 8)) {
            var entry = Entry(sector: try integer(position, 8), sectorCount: try integer(position + 8, 8), flags: try integer(position + 16, 8), data: [])
            guard try integer(position + 24, 8) == 0 else { throw HarnessError("an entry has private data") }
            position += sectorSize
            if entry.flags & 4 == 0 {
                let end = position + Int(entry.sectorCount) * sectorSize
                guard end <= log.count else { throw HarnessError("the data of an entry ends at \(end), the log at \(log.count)") }
                entry.data = log[position..<end]
                position = end
            }
            entries.append(entry)
        }
    }

    /// The disk that the log leads to, from one full of zeroes.
    func replay(byteCount: Int) -> [UInt8] {
        var disk = [UInt8](repeating: 0, count: byteCount)
        for entry in entries where entry.flags & 1 == 0 {
            let start = Int(entry.sector) * sectorSize
            if entry.flags & 4 != 0 {
                for index in start..<min(start + Int(entry.sectorCount) * sectorSize, byteCount) { disk[index] = 0 }
            } else {
                disk.replaceSubrange(start..<start + entry.data.count, with: entry.data)
            }
        }
        return disk
    }
}

@Suite("blklogwrites")
struct BlklogwritesTests {
    private static let writes = [
        "write -P 1 0 512", "write -P 2 700 100", "write -P 3 4k 4k", "flush", "write -z 8k 4k", "write -P 4 100k 30000", "write -zu 16k 8k", "discard 32k 64k", "read 0 512",
        "write -P 5 33000 5000",
    ]

    private static func node(_ options: [String: JSON] = [:]) -> JSON {
        var node: [String: JSON] = [
            "driver": "blklogwrites", "node-name": "top", "discard": "unmap", "file": ["driver": "file", "filename": "disk", "discard": "unmap"],
            "log": ["driver": "file", "filename": "log"],
        ]
        for (key, value) in options { node[key] = value }
        return .object(node)
    }

    private static func log(_ maker: StorageDaemon.Maker, _ options: [String: JSON], into folder: TemporaryFolder) throws -> LogReader {
        let daemon = try StorageDaemon(maker, in: folder)
        if let refusal = try daemon.add(node(options)) { throw HarnessError(refusal) }
        try daemon.export("top")
        for command in writes {
            let answer = try daemon.io(command)
            guard !answer.contains("failed") else { throw HarnessError(answer) }
        }
        try daemon.quit()
        return try LogReader(try folder.read("log"))
    }

    private static func folder(log: [UInt8] = []) throws -> TemporaryFolder {
        let folder = try TemporaryFolder()
        try folder.write([UInt8](repeating: 0, count: 1 << 20), to: "disk")
        try folder.write(log, to: "log")
        return folder
    }

    @Test("the log of the same requests is QEMU's, entry by entry, and leads to the disk", arguments: [512, 4096])
    func sameLog(sectorSize: Int) throws {
        let (ours, theirs) = (try Self.folder(), try Self.folder())
        let options: [String: JSON] = ["log-sector-size": .integer(sectorSize), "log-super-update-interval": 3]
        let log = try Self.log(.ours, options, into: ours), expected = try Self.log(.qemu, options, into: theirs)
        #expect(log.sectorSize == sectorSize && expected.sectorSize == sectorSize)
        #expect(log.entries == expected.entries)
        #expect(firstDifference(log.replay(byteCount: 1 << 20), try ours.read("disk")) == nil)
    }

    @Test("a log is continued, ours by QEMU and QEMU's by us", arguments: StorageDaemon.Maker.allCases)
    func appending(first: StorageDaemon.Maker) throws {
        let folder = try Self.folder()
        let begun = try Self.log(first, ["log-sector-size": 1024], into: folder)
        let continued = try Self.log(first == .ours ? .qemu : .ours, ["log-append": true], into: folder)
        #expect(continued.sectorSize == 1024)
        #expect(Array(continued.entries.prefix(begun.entries.count)) == begun.entries)
        #expect(continued.entries.count > begun.entries.count)
        #expect(firstDifference(continued.replay(byteCount: 1 << 20), try folder.read("disk")) == nil)
    }

    @Test("an empty log can be continued")
    func appendingToNothing() throws {
        let folder = try Self.folder()
        let log = try Self.log(.ours, ["log-append": true], into: folder)
        #expect(log.sectorSize == 512)
        #expect(firstDifference(log.replay(byteCount: 1 << 20), try folder.read("disk")) == nil)
    }

    @Test("the superblock counts what was flushed, and every so many entries without a flush")
    func superblock() throws {
        let folder = try Self.folder()
        let daemon = try StorageDaemon(.ours, in: folder)
        #expect(try daemon.add(Self.node(["log-super-update-interval": 2, "cache": ["no-flush": true]])) == nil)
        try daemon.export("top")
        for index in 0..<5 { _ = try daemon.io("write -P \(index) \(index)k 1k") }
        daemon.process.send(SIGKILL)
        _ = try daemon.process.wait()
        let log = try LogReader(try folder.read("log"))
        #expect(log.entries.filter { $0.flags == 0 }.count == 4)
    }

    @Test("options and logs that make no sense are refused in QEMU's words")
    func refusals() throws {
        func superblock(_ magic: UInt64, _ version: UInt64, _ count: UInt64, _ size: UInt32) -> [UInt8] {
            var bytes: [UInt8] = []
            for value in [magic, version, count] { bytes += (0..<8).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) } }
            bytes += (0..<4).map { UInt8(truncatingIfNeeded: size >> ($0 * 8)) }
            return bytes + [UInt8](repeating: 0, count: 512 - bytes.count)
        }
        let magic: UInt64 = 0x6a73_6677_7368_72
        let cases: [([String: JSON], [UInt8])] = [
            (["log-sector-size": 100], []), (["log-sector-size": 0], []), (["log-sector-size": 16], []), (["log-sector-size": 32], []),
            (["log-sector-size": 16_777_216], []), (["log-super-update-interval": 0], []), (["log-append": true, "log-sector-size": 512], []),
            (["log-append": true], [UInt8](repeating: 0, count: 1024)), (["log-append": true], superblock(magic, 2, 0, 512)),
            (["log-append": true], superblock(magic, 1, 0, 500)), (["log-append": true], superblock(magic + 1, 1, 0, 512)),
            (["log-append": true], superblock(magic, 1, 0, 512)),
        ]
        for (options, log) in cases {
            let session = TwinSession(files: ["disk": [UInt8](repeating: 0, count: 4096), "log": log], nodes: [Self.node(options)])
            try session.expectSame("\(options)")
        }
        // QEMU walks for ever here, or takes what is not there for entries.
        for count in [1, 1_000_000_000_000] as [UInt64] {
            let session = TwinSession(
                files: ["disk": [UInt8](repeating: 0, count: 4096), "log": superblock(magic, 1, count, 512)], nodes: [Self.node(["log-append": true])])
            #expect(try session.run(.ours).lines.first?.contains("Entry 0 of the log lies beyond the end") == true)
        }
    }

    @Test("a log that cannot be written fails the request, and the log stays readable")
    func brokenLog() throws {
        let folder = try Self.folder()
        let daemon = try StorageDaemon(.ours, in: folder)
        let log: JSON = [
            "driver": "blkdebug", "image": ["driver": "file", "filename": "log"], "inject-error": [["event": "none", "iotype": "write", "sector": 5, "once": true, "errno": 28]],
        ]
        #expect(try daemon.add(Self.node(["log": log])) == nil)
        try daemon.export("top")
        let answers = try (0..<6).map { try daemon.io("write -P \($0 + 1) \($0 * 512) 512") }
        #expect(answers.filter { $0.contains("No space left") }.count == 1)
        try daemon.quit()
        let reader = try LogReader(try folder.read("log"))
        #expect(reader.entries.filter { $0.flags == 0 }.count == 5)
    }
}
