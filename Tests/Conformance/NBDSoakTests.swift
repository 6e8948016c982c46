import Foundation
import StrataTesting
import Testing

/// Our client in front of a server that dies again and again, under a load that knows what it has written.
@Suite("NBD soak: a server that dies", .serialized, .timeLimit(.minutes(5)))
struct NBDSoakTests {
    /// Ten seconds by default, a minute in extended runs.
    private static let seconds = extendedRun ? 60 : 10

    private static func serve(_ program: String, _ folder: TemporaryFolder) throws -> ChildProcess {
        let socket = folder.path("back.sock")
        // What the killed one has left.
        try? FileManager.default.removeItem(atPath: socket)
        let words =
            program == "qemu-nbd"
            ? ["qemu-nbd", "-t", "-e", "8", "-f", "raw", "-k", socket, "disk"]
            : [Strata.binary, "nbd", "-t", "-e", "8", "-f", "raw", "-k", socket, "disk"]
        let server = try ChildProcess(words[0], Array(words.dropFirst()), in: folder.url)
        guard waitUntil(atMost: .seconds(60), { UnixSocket(path: socket) != nil || !server.isRunning }), server.isRunning else {
            server.send(SIGKILL)
            throw HarnessError("\(program) does not serve: \(try server.outputSoFar())")
        }
        return server
    }

    @Test("killed and started again every second: no request fails within the delay, and fio finds all that it has written", arguments: extendedRun ? ["strata", "qemu-nbd"] : ["strata"])
    func killedEverySecond(program: String) throws {
        let folder = try TemporaryFolder()
        try folder.write([], to: "disk")
        #expect(truncate(folder.path("disk"), 32 << 20) == 0)
        var server = try Self.serve(program, folder)
        defer { server.send(SIGKILL) }
        let front = try Daemon(
            ["--blockdev", "driver=nbd,node-name=disk,server.type=unix,server.path=\(folder.path("back.sock")),reconnect-delay=60,multi-conn=2",
             "--nbd-server", "addr.type=unix,addr.path=\(folder.path("front.sock"))", "--export", "nbd,id=e,node-name=disk,name=disk,writable=on"], nbd: false, in: folder)
        let fio = try ChildProcess(
            "fio",
            ["--name=soak", "--ioengine=nbd", "--uri=nbd+unix:///disk?socket=\(folder.path("front.sock"))", "--rw=randwrite", "--bs=4k", "--size=32M", "--iodepth=16",
             "--time_based", "--runtime=\(Self.seconds)", "--fsync=64", "--verify=crc32c", "--verify_backlog=512", "--verify_fatal=1", "--randseed=\(runSeed % 100_000)", "--minimal"],
            in: folder.url)
        defer { fio.send(SIGKILL) }
        var deaths = 0
        // One look at the end of fio and one second at a time: the beat is what is tested, nothing waits for it.
        while !waitUntil(atMost: .seconds(1), { !fio.isRunning }) {
            server.send(SIGKILL)
            try server.wait()
            server = try Self.serve(program, folder)
            deaths += 1
        }
        let finished = try fio.wait(atMost: .seconds(120))
        #expect(finished.succeeded && !(finished.text + finished.errorText).contains("verify:") && !finished.errorText.contains("error"), "\(finished)")
        // A start takes its time too, on a busy machine more than the second.
        #expect(deaths >= Self.seconds / 4, "\(deaths) deaths in \(Self.seconds) s")
        // Everything that was flushed is in the file, without a client or a server between.
        let client = try PlainNBDClient(path: folder.path("front.sock"), export: "disk")
        try client.flush()
        let seen = try client.read(8 << 20, at: 0)
        try client.disconnect()
        #expect(firstDifference(try folder.read("disk").prefix(8 << 20).map { $0 }, seen) == nil)
        try front.quit()
        print("soak over \(program): \(deaths) deaths of the server in \(Self.seconds) s, no request failed, fio found what it had written")
    }
}
