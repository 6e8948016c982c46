import Foundation
import StrataTesting
import Testing

/// Addresses of the type `fd`: sockets that the process was started with, as a service manager hands them over.
@Suite("NBD: sockets that were handed over")
struct NBDDescriptorTests {
    /// Starts a daemon with sockets of its own making and says what came of it; the first argument is the program's name, more follow as its words.
    private static let script = #"""
        import os, socket, subprocess, sys, time
        program, folder = sys.argv[1:], os.getcwd()
        count = 0
        def listener(backlog):
            global count
            count += 1
            one = socket.socket(socket.AF_UNIX)
            one.bind(f"{folder}/l{count}")
            if backlog: one.listen()
            return one, f"{folder}/l{count}"
        def attempt(what, words, *sockets, until=None):
            ours = subprocess.Popen([*program, "--blockdev", f"driver=file,node-name=disk,filename={folder}/disk", *words], pass_fds=[one.fileno() for one in sockets],
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for one in sockets: one.close()
            said = until() if until else ""
            if until: ours.terminate()
            out, error = ours.communicate(timeout=60)
            print(what, "|", 0 if until else ours.returncode, "|", said, "|", error.strip().split(": ", 2)[-1] if error else "")
        def size(path): return subprocess.run(["nbdinfo", "--size", f"nbd+unix:///disk?socket={path}"], capture_output=True, text=True, timeout=60).stdout.strip()
        export = ["--export", "nbd,id=e,node-name=disk,name=disk"]
        def server(text): return ["--nbd-server", f"addr.type=fd,addr.str={text}", *export]
        def client(text): return ["--blockdev", f"driver=nbd,node-name=n,server.type=fd,server.str={text}"]
        one, path = listener(True)
        # The socket listens already: who comes before the server is ready waits in it.
        attempt("listening", server(one.fileno()), one, until=lambda: [size(path) for _ in range(3)])
        one, path = listener(False)
        def bound():
            while True:
                try: socket.socket(socket.AF_UNIX).connect(path); return size(path)
                except ConnectionRefusedError: time.sleep(0.01)
        attempt("bound", server(one.fileno()), one, until=bound)
        for text in ("name", "1x", "", "99", "-1"):
            attempt("server " + text, server(text))
            attempt("client " + text, client(text))
        read, write = os.pipe()
        attempt("server pipe", server(read), os.fdopen(read))
        read, write = os.pipe()
        attempt("client pipe", client(read), os.fdopen(read))
        pair = socket.socketpair()
        attempt("server connected", server(pair[0].fileno()), pair[0])
        """#

    @Test("a server and a client take a socket by its number, and refuse everything else as qemu-storage-daemon does", .timeLimit(.minutes(2)))
    func sameAsQEMU() throws {
        func outcome(_ program: [String]) throws -> [String] {
            let folder = try TemporaryFolder()
            try folder.write([UInt8](repeating: 1, count: 65_536), to: "disk")
            return try mustRun("python3", ["-c", Self.script] + program, in: folder.url).text.split(separator: "\n").map(String.init)
        }
        let theirs = try outcome(["qemu-storage-daemon"]), ours = try outcome([Strata.binary, "daemon"])
        #expect(ours == theirs)
        #expect(theirs.first?.contains("['65536', '65536', '65536']") == true && theirs.count == 15, "\(theirs)")
    }

    @Test("over a monitor no numbers are taken for descriptors: they would be those of the daemon's own files")
    func notOverMonitors() throws {
        let daemon = try Daemon(nbd: false, in: try TemporaryFolder())
        for number in ["0", "3", "5", "name"] {
            let failure = #expect(throws: QMPLineClient.Refusal.self) { try daemon.monitor.execute("nbd-server-start", ["addr": ["type": "fd", "data": ["str": .string(number)]]]) }
            #expect(failure?.message.contains("command line only") == true)
        }
        try daemon.quit()
    }

    @Test("clients of one export are spread over threads from the second one on, and an export that names its thread keeps to it")
    func spread() throws {
        let folder = try TemporaryFolder()
        try folder.write([UInt8](repeating: 1, count: 65_536), to: "disk.raw")
        let daemon = try Daemon(["--object", "iothread,id=own"], in: folder)
        try daemon.serve("disk.raw", format: "raw")
        try daemon.monitor.execute(
            "block-export-add", ["type": "nbd", "id": "kept", "node-name": "disk", "name": "kept", "iothread": "own"])
        func threads() throws -> [String] {
            let tasks = "/proc/\(daemon.process.identifier)/task"
            return try FileManager.default.contentsOfDirectory(atPath: tasks).map { try String(contentsOfFile: "\(tasks)/\($0)/comm", encoding: .utf8) }.filter { $0.hasPrefix("export-") }
        }
        let kept = try (0..<3).map { _ in try PlainNBDClient(path: daemon.nbdPath, export: "kept") }
        let first = try PlainNBDClient(path: daemon.nbdPath, export: "disk")
        for client in kept + [first] { #expect(try client.read(4, at: 0) == [1, 1, 1, 1]) }
        #expect(try threads().isEmpty)
        let others = try (0..<4).map { _ in try PlainNBDClient(path: daemon.nbdPath, export: "disk") }
        for (index, client) in others.enumerated() { try client.write([UInt8](repeating: UInt8(index), count: 512), at: 512 * (index + 1)) }
        #expect(try first.read(2560, at: 0) == [1, 0, 1, 2, 3].flatMap { [UInt8](repeating: $0, count: 512) })
        #expect(try threads().count == ProcessInfo.processInfo.activeProcessorCount - 1)
        try daemon.quit()
    }
}
