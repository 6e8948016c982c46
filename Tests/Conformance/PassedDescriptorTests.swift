import Foundation
import StrataTesting
import Testing

/// Opens a file for the time of a call.
private func withOpenFile<Result>(_ path: String, _ flags: Int32, _ body: (Int32) throws -> Result) throws -> Result {
    let descriptor = open(path, flags | O_CLOEXEC)
    guard descriptor >= 0 else { throw HarnessError("cannot open \(path)") }
    defer { close(descriptor) }
    return try body(descriptor)
}

@Suite("descriptors passed in")
struct PassedDescriptorTests {
    private let folder: TemporaryFolder

    init() throws {
        folder = try TemporaryFolder()
        try folder.write([UInt8](repeating: 0x42, count: 1 << 20), to: "disk")
    }

    private func message(_ body: () throws -> Void) -> String {
        do {
            try body()
            return ""
        } catch { return "\(error)" }
    }

    private func files(of daemon: Daemon) throws -> String {
        try OpenFiles(of: daemon.process.identifier, path: folder.path("disk")).description
    }

    /// A read-write member would be closed by unlinking nothing: the daemon runs as nobody and could not open the file by itself.
    @Test("a daemon that may open nothing serves a disk whose two descriptors came over its monitor, and each is used when it fits")
    func overTheMonitor() throws {
        chmod(folder.path("disk"), 0o600)
        chmod(folder.url.path, 0o777)
        let daemon = try Daemon(launcher: ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"], in: folder)
        let monitor = daemon.monitor
        let options: JSON = ["driver": "file", "node-name": "disk", "filename": "/dev/fdset/3", "auto-read-only": true]
        #expect(message { try monitor.execute("blockdev-add", options) }.contains("There is no fdset 3"))
        #expect(message { try monitor.execute("add-fd", ["fdset-id": 3]) }.contains("No file descriptor supplied via SCM_RIGHTS"))

        let first = try withOpenFile(folder.path("disk"), O_RDONLY) {
            try monitor.execute("add-fd", ["fdset-id": 3, "opaque": "rdonly:disk"], passing: [$0])
        }
        #expect(first["fdset-id"] == 3)
        try monitor.execute("blockdev-add", options)
        // The member and its duplicate.
        #expect(try files(of: daemon) == "r+r -")
        let export: JSON = ["type": "nbd", "id": "e", "node-name": "disk", "writable": true]
        #expect(message { try monitor.execute("block-export-add", export) }.contains("fdset 3 has no read-write descriptor"))
        #expect(try files(of: daemon) == "r+r -")

        let second = try withOpenFile(folder.path("disk"), O_RDWR) { try monitor.execute("add-fd", ["fdset-id": 3], passing: [$0]) }
        #expect(try monitor.execute("query-fdsets") == [
            ["fdset-id": 3, "fds": [["fd": try #require(first["fd"]), "opaque": "rdonly:disk"], ["fd": try #require(second["fd"])]]],
        ])
        try monitor.execute("block-export-add", export)
        #expect(try files(of: daemon) == "r+rw+rw read,write,!resize")
        try mustRun("qemu-io", ["-f", "raw", "-c", "write -P 0x17 4096 4096", daemon.uri("disk")])
        try monitor.execute("block-export-del", ["id": "e", "mode": "hard"])
        _ = try monitor.event("BLOCK_EXPORT_DELETED")
        #expect(try files(of: daemon) == "r+r+rw -")
        #expect(try folder.read("disk")[4096] == 0x17)

        // The members go, the duplicate stays, and with it the set.
        try monitor.execute("remove-fd", ["fdset-id": 3])
        #expect(try monitor.execute("query-fdsets") == [["fdset-id": 3, "fds": []]])
        #expect(try files(of: daemon) == "r -")
        try monitor.execute("blockdev-del", ["node-name": "disk"])
        #expect(try monitor.execute("query-fdsets") == [])
        #expect(try files(of: daemon) == "closed -")
        #expect(message { try monitor.execute("remove-fd", ["fdset-id": 3]) }.contains("File descriptor named 'fdset-id:3' not found"))
        try daemon.quit()
    }

    @Test("--add-fd puts inherited files into sets; numbers that are none of the parent's are refused by name")
    func onTheCommandLine() throws {
        let shell = ["bash", "-c", #"exec 7<>disk 8<disk; exec "$@""#, "bash"]
        let daemon = try Daemon(
            ["--add-fd", "fd=7,set=1,opaque=a", "--add-fd", "set=1,fd=8", "--blockdev", "file,node-name=disk,filename=/dev/fdset/1"], launcher: shell,
            in: folder)
        #expect(try daemon.monitor.execute("query-fdsets")[0]?["fds"]?.array?.count == 2)
        // Two members and a duplicate; the inherited numbers are closed.
        #expect(try files(of: daemon) == "r+rw+rw -")
        try daemon.quit()
        for (option, complaint) in [
            ("fd=1,set=1", "standard streams"), ("fd=9,set=1", "fd 9 is not an open file"), ("fd=7", "Parameter 'set' is missing"),
            ("fd=x,set=1", "Parameter 'fd' expects a number"), ("fd=7,set=1,color=red", "Invalid parameter 'color'"),
        ] {
            let finished = try run("bash", ["-c", #"exec 7<disk 9<&-; exec "$@""#, "bash", Strata.binary, "daemon", "--add-fd", option], in: folder.url)
            #expect(finished.ending == .exited(1) && finished.errorText.contains("--add-fd \(option): "), "\(finished)")
            #expect(finished.errorText.contains(complaint), "\(finished)")
        }
    }

    @Test("members that are two different files are not exchanged for one another")
    func differentFiles() throws {
        try folder.write([1, 2, 3], to: "other")
        let shell = ["bash", "-c", #"exec 7<disk 8<>other; exec "$@""#, "bash"]
        let daemon = try Daemon(
            ["--add-fd", "fd=7,set=1", "--add-fd", "fd=8,set=1", "--blockdev", "file,node-name=disk,filename=/dev/fdset/1,auto-read-only=on"],
            launcher: shell, in: folder)
        let refusal = message { try daemon.monitor.execute("block-export-add", ["type": "nbd", "id": "e", "node-name": "disk", "writable": true]) }
        #expect(refusal.contains("descriptor of fdset 1 is another file"), "\(refusal)")
        try daemon.quit()
    }

    @Test("descriptors that come with other messages do no harm, and many are bounded")
    func stray() throws {
        let daemon = try Daemon(in: folder)
        let before = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(daemon.process.identifier)/fd").count
        try withOpenFile(folder.path("disk"), O_RDONLY) { file in
            for _ in 0..<50 { try daemon.monitor.execute("query-fdsets", passing: [Int32](repeating: file, count: 20)) }
        }
        let after = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(daemon.process.identifier)/fd").count
        #expect(after <= before + 64)
        try daemon.quit()
    }
}
