import Foundation
import StrataTesting
import Testing

/// Wherever a tool takes options, they may be JSON: a row for each option.
@Suite("JSON on command lines")
struct JSONOptionTests {
    private static let file = #"{"driver":"raw","file":{"driver":"file","filename":"a.raw"}}"#
    private static let image = #"{"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2"}}"#

    @Test("every option of img that takes options takes JSON", arguments: [
        (["info", "--image-opts", file], "virtual size: 1 MiB"), (["info", "json:" + file], "virtual size: 1 MiB"),
        (["check", "--image-opts", image], "No errors"), (["check", "json:" + image], "No errors"),
        (["info", "--object", #"{"qom-type":"secret","id":"s","data":"x"}"#, "a.raw"], "virtual size: 1 MiB"),
        (["create", "-f", "qcow2", "-o", #"{"cluster_size":"32k","lazy_refcounts":true}"#, "n", "1M"], "cluster_size=32768"),
        (["create", "-f", "qcow2", "-o", #"{"cluster_size":4096},refcount_bits=8"#, "n", "1M"], "refcount_bits=8"),
        (["create", "-f", "qcow2", "-o", "refcount_bits=8", "-o", #"{"cluster_size":4096}"#, "n", "1M"], "cluster_size=4096"),
        (["create", "-f", "qcow2", "-b", "json:" + file, "-F", "raw", "n"], "backing_fmt=raw"),
        (["convert", "-O", "qcow2", "-o", #"{"cluster_size":"4k"}"#, "a.raw", "n"], ""), (["convert", "--image-opts", file, "-O", "qcow2", "n"], ""),
        (["convert", "-n", "--target-image-opts", "a.raw", image], ""), (["convert", "json:" + file, "-O", "qcow2", "n"], ""),
        (["info", "--trace", #"{"enable":"bdrv_flush_*"}"#, "a.raw"], "virtual size: 1 MiB"),
    ] as [([String], String)])
    func img(arguments: [String], output: String) throws {
        let folder = try TemporaryFolder()
        try folder.write(Data(count: 1 << 20), to: "a.raw")
        try Strata.mustImg("create", "-f", "qcow2", "a.qcow2", "1M", in: folder)
        let finished = try run(Strata.binary, ["img"] + arguments, in: folder.url)
        #expect(finished.succeeded && (output.isEmpty || String(decoding: finished.output, as: UTF8.self).contains(output)), "\(finished)")
    }

    @Test("JSON that is none, or that has what no option can be, is refused", arguments: [
        ["info", "--image-opts", #"{"driver":"raw""#], ["info", "json:{"], ["create", "-f", "qcow2", "-o", #"{"cluster_size":"#, "n", "1M"],
        ["create", "-f", "qcow2", "-o", #"{"cluster_size":null}"#, "n", "1M"], ["create", "-f", "qcow2", "-o", #"{"cluster_size":[4096]}"#, "n", "1M"],
        ["create", "-f", "qcow2", "-o", #"{"nonsense":1}"#, "n", "1M"],
    ])
    func refused(arguments: [String]) throws {
        let folder = try TemporaryFolder()
        let finished = try run(Strata.binary, ["img"] + arguments, in: folder.url)
        #expect(finished.ending == .exited(1), "\(finished)")
        #expect(!folder.contains("n"))
    }

    @Test("every option of the daemon that takes options takes JSON")
    func daemon() throws {
        let folder = try TemporaryFolder()
        try folder.write(Data(count: 1 << 20), to: "a.raw")
        let disk = String(Self.file.dropLast()) + #","node-name":"disk"}"#
        let words: [String] = [
            "--add-fd", #"{"fd":5,"set":7,"opaque":"input"}"#, "--object", #"{"qom-type":"iothread","id":"t","poll-max-ns":7}"#, "--blockdev", disk,
            "--chardev", #"{"id":"c","backend":{"type":"socket","data":{"addr":{"type":"unix","data":{"path":"m.sock"}},"wait":false}}}"#,
            "--monitor", #"{"chardev":"c","mode":"control","pretty":true}"#, "--nbd-server", #"{"addr":{"type":"unix","path":"n.sock"},"max-connections":3}"#,
            "--export", #"{"type":"nbd","id":"e","node-name":"disk","iothread":"t","bitmaps":[]}"#, "--compat", #"{"deprecated-input":"reject"}"#, "--pidfile", "ready",
        ]
        let daemon = try ChildProcess("bash", ["-c", #"exec "$0" daemon "$@" 5< a.raw"#, Strata.binary] + words, in: folder.url)
        defer { daemon.send(SIGKILL) }
        let hasStarted = waitUntil { folder.contains("ready") || !daemon.isRunning }
        try #require(hasStarted && daemon.isRunning)
        func ask(_ line: String) throws -> String { String(decoding: try run(Strata.binary, ["qmp", "m.sock", "--compact", "-c", line], in: folder.url).output, as: UTF8.self) }
        #expect(try ask("query-block-exports").contains(#""id": "e""#))
        #expect(try ask("qom-get path=/objects/t property=poll-max-ns") == "7\n")
        #expect(try ask("query-fdsets").contains("\"fdset-id\": 7"))
        #expect(try run(Strata.binary, ["qmp", "m.sock", "-c", "nbd-server-remove name=e"], in: folder.url).ending == .exited(1))
        #expect(try ask("quit") == "{}\n")
        #expect(try daemon.wait(atMost: .seconds(20)).succeeded)
    }
}
