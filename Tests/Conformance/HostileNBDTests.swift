import Foundation
import StrataTesting
import Synchronization
import Testing

/// What a broken or hostile NBD client sends. The server drops that client or answers an error; the others never notice.
@Suite("hostile NBD clients")
struct HostileNBDTests {
    private func served() throws -> Daemon {
        let folder = try TemporaryFolder()
        try folder.write(repeatElement(0x5c, count: 1 << 20), to: "disk.raw")
        let daemon = try Daemon(in: folder)
        try daemon.serve("disk.raw", format: "raw")
        return daemon
    }

    private func expectAlive(_ daemon: Daemon, _ what: String) throws {
        let client = try PlainNBDClient(path: daemon.nbdPath, export: "disk", limit: .seconds(20))
        #expect(try client.read(512, at: 0) == [UInt8](repeating: 0x5c, count: 512), "after \(what)")
        try client.disconnect()
    }

    private static func bytes<I: FixedWidthInteger>(_ value: I) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }

    private static func option(_ number: UInt32, length: UInt32, _ payload: [UInt8]) -> [UInt8] {
        bytes(0x4948_4156_454f_5054 as UInt64) + bytes(number) + bytes(length) + payload
    }

    /// A handshake as a client sends it, up to and including a request.
    private static let conversation =
        bytes(3 as UInt32) + option(7, length: 10, bytes(4 as UInt32) + Array("disk".utf8) + bytes(0 as UInt16))
        + bytes(0x2560_9513 as UInt32) + bytes(0 as UInt16) + bytes(0 as UInt16) + bytes(9 as UInt64) + bytes(0 as UInt64) + bytes(4096 as UInt32)

    @Test("a client may hang up after any byte of the handshake and of a request")
    func hangUpAnywhere() throws {
        let daemon = try served()
        for count in 0...Self.conversation.count {
            let socket = try #require(UnixSocket(path: daemon.nbdPath, limit: .seconds(20)))
            try socket.send(Array(Self.conversation.prefix(count)))
        }
        try expectAlive(daemon, "hanging up early")
        try daemon.quit()
    }

    @Test("nonsense in the handshake ends that connection only")
    func nonsenseHandshake() throws {
        let daemon = try served()
        let flags = Self.bytes(3 as UInt32)
        var generator = SeededGenerator(seed: runSeed)
        let attacks: [(String, [UInt8])] = [
            ("unknown client flags", Self.bytes(0xffff_ffff as UInt32)),
            ("a wrong option magic", flags + [UInt8](repeating: 0xee, count: 16)),
            ("an option of 4 GiB", flags + Self.option(7, length: .max, [])),
            ("an unknown option of 1 GiB", flags + Self.option(99, length: 1 << 30, [])),
            ("an export name longer than its option", flags + Self.option(7, length: 6, Self.bytes(UInt32.max) + Self.bytes(0 as UInt16))),
            ("an empty GO", flags + Self.option(7, length: 0, [])),
            ("a name of 5000 bytes", flags + Self.option(1, length: 5000, [UInt8](repeating: 0x41, count: 5000))),
            ("a name of 4096 bytes", flags + Self.option(7, length: 4102, Self.bytes(4096 as UInt32) + [UInt8](repeating: 0x41, count: 4096) + Self.bytes(0 as UInt16))),
            ("a name that is no text", flags + Self.option(7, length: 10, Self.bytes(4 as UInt32) + [0xff, 0xfe, 0x00, 0x80] + Self.bytes(0 as UInt16))),
            ("meta contexts without structured replies", flags + Self.option(10, length: 8, Self.bytes(0 as UInt32) + Self.bytes(UInt32.max))),
            ("random bytes", flags + randomBytes(4096, using: &generator)),
        ]
        for (what, attack) in attacks {
            let socket = try #require(UnixSocket(path: daemon.nbdPath, limit: .seconds(10)), "after \(what)")
            try? socket.send(attack)
            socket.finishSending()
            while case let some? = try? socket.receiveSome(65536), !some.isEmpty {}
            #expect(daemon.process.isRunning, "the daemon died of \(what)")
        }
        try expectAlive(daemon, "nonsense")
        try daemon.quit()
    }

    @Test("requests outside the disk, too long or unknown get an error, and the connection goes on")
    func badRequests() throws {
        let daemon = try served()
        let client = try PlainNBDClient(path: daemon.nbdPath, export: "disk", limit: .seconds(20))
        #expect(throws: PlainNBDClient.Refusal.self) { try client.read(512, at: 1 << 20) }
        #expect(throws: PlainNBDClient.Refusal.self) { try client.read(512, at: Int.max - 100) }
        #expect(throws: PlainNBDClient.Refusal.self) { try client.read(4096, at: (1 << 20) - 512) }
        #expect(throws: PlainNBDClient.Refusal.self) { try client.write([1, 2, 3], at: (1 << 20) - 2) }
        #expect(throws: PlainNBDClient.Refusal.self) { try client.trim(1 << 20, at: 4096) }
        #expect(throws: PlainNBDClient.Refusal.self) { try client.writeZeroes(Int(UInt32.max), at: 0) }
        #expect(try client.read(512, at: 0) == [UInt8](repeating: 0x5c, count: 512))
        try client.disconnect()
        try expectAlive(daemon, "bad requests")
        try daemon.quit()
    }

    @Test("a wrong request magic or a write that is too long ends that connection only")
    func brokenTransmission() throws {
        let daemon = try served()
        var generator = SeededGenerator(seed: runSeed &+ 3)
        for round in 0..<10 {
            let socket = try #require(UnixSocket(path: daemon.nbdPath, limit: .seconds(10)))
            try socket.send(Array(Self.conversation.dropLast(28)))
            // A write of 4 GiB - 1, or random bytes where a request belongs.
            let write = Self.bytes(0x2560_9513 as UInt32) + [0, 0, 0, 1] + Self.bytes(UInt64(round)) + Self.bytes(0 as UInt64) + Self.bytes(UInt32.max)
            try? socket.send(round == 0 ? write : randomBytes(280, using: &generator))
            socket.finishSending()
            while case let some? = try? socket.receiveSome(65536), !some.isEmpty {}
        }
        try expectAlive(daemon, "broken requests")
        try daemon.quit()
    }

    @Test("clients that leave while long answers are on their way do not end the daemon by a signal")
    func leavesInTheMiddle() throws {
        let daemon = try served()
        for round in 0..<30 {
            let client = try PlainNBDClient(path: daemon.nbdPath, export: "disk", limit: .seconds(20))
            for cookie in 0..<8 { try client.submit(.read, cookie: UInt64(cookie), offset: 0, length: 1 << 20) }
            // Some have got the beginning of an answer, some nothing.
            if round % 2 == 0 { _ = try client.reply(readLength: 1000) }
        }
        try expectAlive(daemon, "clients that leave")
        try daemon.quit()
    }

    /// Opens that many connections, says a different beginning of a handshake on each, and keeps them until its input ends.
    private static let crowd = """
        import socket, sys
        path, count = sys.argv[1], int(sys.argv[2])
        words = [b"", b"\\0\\0", b"\\0\\0\\0\\3", b"\\0\\0\\0\\3IHAVE", b"\\0\\0\\0\\3IHAVEOPT\\0\\0\\0\\7\\0\\0\\1\\0abc"]
        crowd = []
        for index in range(count):
            one = socket.socket(socket.AF_UNIX)
            one.connect(path)
            one.recv(18, socket.MSG_WAITALL)
            one.sendall(words[index % len(words)])
            crowd.append(one)
        print("here", flush=True)
        ended = sum(one.recv(1) == b"" for one in crowd)
        print("ended", ended, flush=True)
        """

    @Test("ten thousand clients that do not finish their handshake do not slow one that works, and the server stops at once all the same", .timeLimit(.minutes(4)))
    func halfOpenCrowd() throws {
        let folder = try TemporaryFolder()
        try folder.write(repeatElement(0x5c, count: 1 << 20), to: "disk.raw")
        let path = folder.path("crowded.sock")
        let daemon = try Daemon(
            ["--blockdev", "driver=file,node-name=disk,filename=\(folder.path("disk.raw"))",
             "--nbd-server", "addr.type=unix,addr.path=\(path),max-connections=0,handshake-max-seconds=0", "--export", "nbd,id=e,node-name=disk,name=disk"],
            nbd: false, launcher: ["prlimit", "--nofile=15000:15000"], in: folder)
        let client = try PlainNBDClient(path: path, export: "disk")
        /// The best of several rounds, in seconds: others use this machine too.
        func bestRound() throws -> Double {
            var best = Double.infinity
            for _ in 0..<40 {
                let start = ContinuousClock.now
                for _ in 0..<200 { _ = try client.read(512, at: 4096) }
                best = min(best, (ContinuousClock.now - start) / .seconds(1))
            }
            return best
        }
        let before = try bestRound()
        let crowd = try ChildProcess("prlimit", ["--nofile=15000:15000", "python3", "-c", Self.crowd, path, "10000"])
        #expect(try waitUntil(atMost: .seconds(100)) { try crowd.outputSoFar().output.hasPrefix("here") || !crowd.isRunning })
        let during = try bestRound()
        #expect(during < before * 2 + 0.005, "\(before) s before, \(during) s in the crowd")
        let other = try PlainNBDClient(path: path, export: "disk")
        #expect(try other.read(4, at: 0) == [0x5c, 0x5c, 0x5c, 0x5c], "new clients are let in")
        let usedBefore = try processorSeconds(of: daemon.process.identifier)
        let start = ContinuousClock.now
        try daemon.monitor.execute("nbd-server-stop")
        // A second of the machine's time; the clock's depends on what else runs there.
        #expect(try processorSeconds(of: daemon.process.identifier) - usedBefore < 1)
        #expect(ContinuousClock.now - start < .seconds(10))
        #expect(try crowd.wait().text == "here\nended 10000\n")
        try daemon.quit()
    }

    /// Processor time that a process has used.
    private func processorSeconds(of process: pid_t) throws -> Double {
        let fields = try String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8).split(separator: ")").last?.split(separator: " ") ?? []
        let ticks = fields.count > 12 ? (Double(fields[11]) ?? 0) + (Double(fields[12]) ?? 0) : 0
        return ticks / Double(sysconf(Int32(_SC_CLK_TCK)))
    }

    @Test("clients that come, talk and leave at any moment while servers start and stop and exports come and go")
    func races() throws {
        let folder = try TemporaryFolder()
        try folder.write(repeatElement(0x5c, count: 1 << 20), to: "disk.raw")
        let daemon = try Daemon(["--blockdev", "driver=file,node-name=disk,filename=\(folder.path("disk.raw"))"], nbd: false, in: folder)
        let isOver = Atomic<Bool>(false)
        let path = daemon.nbdPath
        let crowd = (0..<3).map { number in
            Thread {
                var random = SeededGenerator(seed: runSeed &+ UInt64(number))
                while !isOver.load(ordering: .acquiring) {
                    guard let socket = UnixSocket(path: path, limit: .seconds(20)) else { continue }
                    try? socket.send(Array(Self.conversation.prefix(Int.random(in: 0...Self.conversation.count, using: &random))))
                    if Bool.random(using: &random) { _ = try? socket.receiveSome(100) }
                }
            }
        }
        for thread in crowd { thread.start() }
        defer { isOver.store(true, ordering: .releasing) }
        let address: JSON = ["type": "unix", "data": ["path": .string(path)]]
        let export: JSON = ["type": "nbd", "id": "e", "node-name": "disk", "name": "disk"]
        for round in 0..<60 {
            try daemon.monitor.execute("nbd-server-start", ["addr": address])
            try daemon.monitor.execute("block-export-add", export)
            if round % 3 == 0 { try daemon.monitor.execute("block-export-del", ["id": "e", "mode": "hard"]) }
            if round % 2 == 0 { try expectAliveOr(daemon, isThere: round % 3 != 0) }
            try daemon.monitor.execute("nbd-server-stop")
            #expect(daemon.process.isRunning)
        }
        isOver.store(true, ordering: .releasing)
        #expect(waitUntil { crowd.allSatisfy(\.isFinished) })
        try daemon.monitor.execute("nbd-server-start", ["addr": address])
        try daemon.monitor.execute("block-export-add", export)
        try expectAlive(daemon, "many starts and stops")
        try daemon.quit()
    }

    /// The export answers, or is gone.
    private func expectAliveOr(_ daemon: Daemon, isThere: Bool) throws {
        if isThere { return try expectAlive(daemon, "a start") }
        #expect(throws: HarnessError.self) { try PlainNBDClient(path: daemon.nbdPath, export: "disk", limit: .seconds(20)) }
    }

    @Test("the longest ranges that block status can be asked for, and disks beyond 2^32 sectors, are told whole to either kind of client")
    func longestBlockStatus() throws {
        let folder = try TemporaryFolder()
        // 16 TiB with one cluster of data near the end.
        try QEMU.img("create", "-f", "qcow2", "-o", "cluster_size=64k", "disk.qcow2", "16T", in: folder)
        try QEMU.io("disk.qcow2", ["write -P 5 15T 64k"], in: folder)
        let expected = [[0, 15 << 40, 3], [15 << 40, 65536, 0], [15 << 40 + 65536, 1 << 40 - 65536, 3]]
        for program in [nil, "qemu-storage-daemon"] {
            let daemon = try Daemon(program: program, in: folder)
            try daemon.serve("disk.qcow2", writable: false)
            // libnbd asks for 4 GiB - 1 at a time, in requests of 32 bits; the others for more in extended ones.
            let map = try JSON(parsing: try mustRun("nbdinfo", ["--map", "--json", daemon.uri("disk")]).output)
            let extents = map.array?.map { [$0["offset"]?.integer ?? -1, $0["length"]?.integer ?? -1, $0["type"]?.integer ?? -1] }
            #expect(extents == expected, "\(program ?? "ours"): \(map)")
            for tool in [["qemu-img"], [Strata.binary, "img"]] {
                let map = try JSON(parsing: try mustRun(tool[0], tool.dropFirst() + ["map", "--output=json", "-f", "raw", daemon.uri("disk")]).output)
                let extents = map.array?.map { [$0["start"]?.integer ?? -1, $0["length"]?.integer ?? -1, $0["zero"] == true ? 3 : 0] }
                #expect(extents == expected, "\(tool) at \(program ?? "ours"): \(map)")
            }
            try daemon.quit()
        }
    }

    @Test("a client that asks and never reads does not hold up the others")
    func slowReader() throws {
        let daemon = try served()
        let slow = try PlainNBDClient(path: daemon.nbdPath, export: "disk", limit: .seconds(5))
        // Far more than the socket's buffers hold; the server may stop reading from this client, and sending may then fail.
        for cookie in 0..<200 { if (try? slow.submit(.read, cookie: UInt64(cookie), offset: 0, length: 512 << 10)) == nil { break } }
        try expectAlive(daemon, "a slow reader")
        try daemon.quit()
    }
}
