import Foundation
import StrataTesting
import Testing

/// Scripts written for qemu-io must not notice the difference: what is printed (but for times and rates), the exit status, and what is on the disks.
@Suite("io answers as qemu-io does")
struct IOToolTests {
    /// The images that every command begins with, made once.
    private static let images: Result<TemporaryFolder, any Error> = Result {
        let folder = try TemporaryFolder()
        try QEMU.img("create", "-q", "-f", "qcow2", "base.qcow2", "8M", in: folder)
        try QEMU.io("base.qcow2", ["write -q -P 3 0 3M"], in: folder)
        try QEMU.img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "a.qcow2", in: folder)
        try QEMU.io("a.qcow2", ["write -q -P 5 1M 100k"], in: folder)
        try folder.write([UInt8](repeating: 0, count: 1_000_000), to: "r.raw")
        try folder.write([], to: "e.raw")
        try folder.write(Array("what is in the file".utf8), to: "pattern")
        return folder
    }

    /// The same images in two folders, one for each program.
    private struct Pair {
        let theirs: TemporaryFolder, ours: TemporaryFolder

        init() throws {
            (theirs, ours) = (try TemporaryFolder(), try TemporaryFolder())
            let images = try IOToolTests.images.get()
            for folder in [theirs, ours] {
                for name in try images.names { try FileManager.default.copyItem(atPath: images.path(name), toPath: folder.path(name)) }
            }
            try FileManager.default.createSymbolicLink(atPath: ours.path("qemu-io"), withDestinationPath: Strata.binary)
        }

        /// Both sides' answers to one command line, and what the images are then.
        func run(_ arguments: [String], input: String) throws -> (theirs: [String], ours: [String]) {
            (try run("qemu-io", arguments, input, theirs), try run(ours.path("qemu-io"), arguments, input, ours))
        }

        private func run(_ program: String, _ arguments: [String], _ input: String, _ folder: TemporaryFolder) throws -> [String] {
            let finished = try StrataTesting.run(program, arguments, in: folder.url, input: Data(input.utf8), atMost: .seconds(60))
            var answers = ["\(finished.ending)", Self.comparable(finished.text), Self.comparable(finished.errorText).replacing(program, with: "qemu-io")]
            for (image, format) in [("a.qcow2", "qcow2"), ("r.raw", "raw")] where !arguments.allSatisfy({ !$0.contains(image) }) {
                try QEMU.img("convert", "-U", "-f", format, "-O", "raw", image, "contents", in: folder)
                answers.append("\(image): \(try folder.read("contents").hashValue)")
                if format == "qcow2" { try QEMU.mustFindClean(image, in: folder) }
            }
            return answers
        }

        /// Without times and rates, and without the descriptions of commands, which are in words of our own.
        private static func comparable(_ text: String) -> String {
            text.replacing(#/ops; [^(]*\([^)]*\)/#, with: "ops")
                .replacing(#/(?m)^([0-9]+,1),.*$/#, with: { "\($0.output.1)" })
                .replacing(#/(?m)^([a-z_]+ .*) -- [a-z].*$/#, with: { "\($0.output.1)" })
        }
    }

    private func check(_ arguments: [String], input: String = "") throws {
        let answers = try Pair().run(arguments, input: input)
        #expect(answers.ours == answers.theirs, "qemu-io \(arguments) < \(input)")
    }

    private func check(_ image: [String], _ commands: [String]) throws { try check(image + commands.flatMap { ["-c", $0] }) }

    @Test(
        "one command on a qcow2 image with a backing file",
        arguments: [
            "sleep x", "sleep -5", "sleep 1", "break write_aio A", "resume A", "remove_break A", "sigraise 0", "sigraise x", "sigraise", "sigraise 15",
            "zone_report 0 1", "zone_append 0 4k", "zone_open 0 4k", "zone_append 0", "help foo", "help a b", "quit 3", "q", "length x", "close x", "alloc",
            "alloc 0 1 2", "alloc 1", "alloc 0 1x", "alloc 64M", "alloc 7M 2M", "alloc 1M 200k", "map", "info", "map x", "flush x", "flush", "discard 0",
            "discard x 1", "discard 0 x", "discard 64M 64k", "discard 0 3G", "discard 1 512", "discard 0 1M", "read 1.5k 1.5k", "read 0x200 0x10",
            "read 0 1b", "read 0 0", "readv 0 0", "readv 0 x", "readv 0 512 0", "write 0 0", "read -p 0 512", "read -Cq 0 512", "read -C 0 512",
            "write -r 0 512", "readv -Z", "writev 64M 512", "readv 64M 512", "writev x 5", "writev 0 x", "write -P 5 0 1x", "truncate 16M",
            "truncate -m off 16M", "open a.qcow2", "abort", "read -q 0 512", "read 0 2147483136", "  ", "#foo", "write -zC 0 1000", "discard -C 0 64k",
            "truncate 1M 2M", "truncate 1M 2M 3M -m off", "truncate -m off", "truncate --", "sigraise 65", "sigraise 66", "sigraise 999", "sigraise 1k",
            "sleep 99999999999999999999", "sleep 9223372036855", "sleep +1", "sleep 1.5", "sleep -99999999999999999999", "m", "zrp 0 1", "zo 0 1", "zc 0 1",
            "zf 0 1", "zrs 0 1", "zap 0 1 2", "zap 0 1", "zone_append x y z", "help zap",
        ])
    func onQCOW2(_ command: String) throws { try check(["a.qcow2"], [command]) }

    @Test(
        "one reading or writing command",
        arguments: [
            "read 0 1000", "write 0 1536", "read 0 100001", "read -v -P 1 0 16", "read -v 5 20", "readv -v 5 20 3", "exit", "length", "write -z 0 4k",
            "write -zu 0 64k", "write -zn 0 64k", "write -c 0 64k", "write 1 512", "read 64M 512", "read -- -1 512", "read 0 xyz", "read 0 8E",
            "write 7M 2M", "writev -P 300 0 4k", "write -P xx 0 4k", "read", "read 0", "read 0 1 2 3 4 5", "foo", "read -P", "read -P 3 -s 5000 0 4k",
            "read -P 5 -l 5000 0 4k", "read -P 3 -s 10 -l 20 0 4k", "read -s 5 0 4k", "write -P 1 -z 0 4k", "write -s nosuch 0 4k",
            "write -s /dev/null 0 4k", "write -s /tmp 0 4k", "write -s pattern 0 4k", "write -u 0 4k", "write -n 0 4k", "write -bz 0 4k", "write -f 0 4k",
            "write -fc 0 64k", "write -c 512 512", "write -c 1 512", "readv 0 1G 1G", "readv 0 3G", "write -z 0 3G", "read 0 -5", "read -Z 0 4k",
            "aio_write -z 0 4k 4k", "aio_write -u 0 4k", "aio_write -P 300 0 4k", "aio_read -P 300 0 4k", "aio_read x 4k", "aio_read 64M 4k",
            "aio_write 64M 4k", "aio_read 0 x", "aio_write 0 4k", "aio_read -P 3 0 4k", "aio_read -P 9 0 4k", "aio_read -v 0 32", "aio_write -i 0 4k",
            "aio_read -i 0 4k", "aio_flush", "aio_write -zu 0 64k", "aio_write -f -P 3 1k 2k 3k", "write -zr 0 64k", "write -zr 64M 1", "write -zr 0 x", "write -zrb 0 64k", "aio_write -zr 0 64k",
            "aio_write -zru x 64k", "aio_write -zr 0 1 2", "aio_write -i -zr 0 1", "aio_write -zrP 3 0 64k", "write -s e.raw 0 0", "write -s e.raw 64M 0",
            "write -s e.raw 0 4k", "write -P +5 0 4k", "read 0 .001G", "read 0 0.0005k", "read 0 0.0004k", "read 0 0.00048828125k", "alloc 0 7.99999E",
        ])
    func transfers(_ command: String) throws { try check(["a.qcow2"], [command]) }

    @Test(
        "one command on raw bytes, whose last sector is not whole",
        arguments: [
            "read 999990 10", "read 999990 20", "write 0 512", "write 999999 1", "write 999990 400", "info", "map", "alloc 0 1000000", "truncate 2M",
            "truncate -m full 3M", "truncate -m falloc 3M", "truncate 3k", "truncate -m bogus 1", "truncate", "truncate xx", "length", "write -z 0 512",
            "write -z 1k 1M", "write -zn 0 512", "write -c 0 512", "discard 0 64k", "write -zu 0 64k", "aio_write 0 4k", "write -P 7 500 3000",
            "write -b 0 512", "read -b 0 512", "read -b 1 512", "sleep 5x", "read 1e3 1", "read 0 .5k",
        ])
    func onRaw(_ command: String) throws { try check(["-f", "raw", "r.raw"], [command]) }

    @Test(
        "reopening", arguments: [
            "reopen", "reopen -r", "reopen -w", "reopen -rw", "reopen -c none", "reopen -c bogus", "reopen -o lazy-refcounts=on", "reopen -o foo=bar",
            "reopen -o driver=raw", "reopen -c none -o cache.direct=on", "reopen -w -o read-only=on", "reopen foo", "reopen -c writethrough",
            "reopen -o backing=", "reopen -o backing=foo", "reopen -o file=", "reopen -o l2-cache-size=1M", "reopen -o cache-size=1M,l2-cache-size=512k",
            "reopen -o lazy-refcounts=on -o lazy-refcounts=off", "reopen -o lazy-refcounts=on -o lazy-refcounts=foo", "reopen -o foo=on -o lazy-refcounts=on",
            "reopen -o backing.lazy-refcounts=on", "reopen -o backing.driver=null-co", "reopen -o file.filename=x",
            "reopen -o cache.direct=on -o cache.no-flush=on", "reopen -o cache.no-flush=on -c none", "reopen -r a",
        ])
    func reopening(_ command: String) throws { try check(["a.qcow2"], [command, "write -P 9 0 4k", "length"]) }

    @Test(
        "several commands",
        arguments: [
            ["read -P 3 0 1M", "read -P 5 1M 100k", "read -P 3 2M 1M", "read -P 0 3M 5M", "foo", "read 0 512"],
            ["close", "read 0 512", "open base.qcow2", "read -P 3 0 1M", "close", "close"],
            ["reopen -r", "write 0 512", "reopen -w", "write -P 8 0 512", "reopen -r", "write 0 512", "discard 0 64k", "truncate 1M", "aio_write 0 4k", "write -z 0 4k"],
            ["quit", "read 0 512"], ["sigraise 10", "sigraise 29", "sigraise 13", "length"], ["reopen -o backing=", "read -P 3 0 64k", "read -P 0 0 64k"],
            ["reopen -o lazy-refcounts=on -o lazy-refcounts=off", "info"], ["open -r", "open -o foo=bar", "open --", "open a b", "open", "length"],
        ])
    func severalCommands(_ commands: [String]) throws { try check(["a.qcow2"], commands) }

    @Test(
        "options of the tool and of the open command",
        arguments: [
            ["-r", "a.qcow2", "-c", "write 0 512", "-c", "discard 0 64k", "-c", "reopen -w", "-c", "write 0 512"], ["nosuch", "-c", "length"],
            ["-f", "foo", "a.qcow2", "-c", "length"], ["-t", "bogus", "a.qcow2"], ["-d", "bogus", "a.qcow2"], ["-i", "bogus", "a.qcow2"],
            ["-n", "-t", "none", "a.qcow2", "-c", "length"],
            ["-s", "a.qcow2", "-c", "write -P 7 0 4k", "-c", "read -P 7 0 4k", "-c", "map", "-c", "info"],
            ["-C", "a.qcow2", "-c", "read 0 64k"], ["-C", "-r", "a.qcow2", "-c", "read 0 4k"], ["-c", "read 0 512"],
            ["-c", "open a.qcow2", "-c", "read 0 1k", "-c", "close", "-c", "read 0 1k"], ["-c", "open"], ["-c", "open nosuch"],
            ["-c", "open -o driver=raw,offset=512 a.qcow2", "-c", "info", "-c", "length"], ["-c", "open -r -w a.qcow2"],
            ["-c", "open -o driver=foo a.qcow2"], ["-c", "open -o foo=bar a.qcow2"], ["-c", "open a b"], ["-c", "open -U a.qcow2"],
            ["-c", "open -U -r a.qcow2", "-c", "length"], ["-c", "open -t bogus a.qcow2"],
            ["-c", "open -o driver=qcow2,file.filename=a.qcow2", "-c", "info"], ["-f", "file", "r.raw", "-c", "info", "-c", "map"],
            ["--image-opts", "driver=blkdebug,image.filename=r.raw,image.driver=file", "-c", "info"],
            ["--image-opts", "-f", "raw", "a.qcow2", "-c", "length"], ["--image-opts", "driver=qcow2,file.filename=a.qcow2", "-c", "length"],
            ["r.raw", "-c", "write 0 512", "-c", "write 512 512"], ["-k", "a.qcow2", "-c", "length"], ["-k", "-n", "a.qcow2", "-c", "length"],
            ["-t", "writethrough", "a.qcow2", "-c", "write 0 100"], ["-n", "-m", "a.qcow2", "-c", "write -P 3 0 64k", "-c", "read -P 3 0 64k"],
            ["-n", "a.qcow2", "-c", "write -P 3 1 100", "-c", "read -P 3 1 99"], ["--object", "secret,id=s,data=x", "a.qcow2", "-c", "length"],
            ["json:{\"driver\":\"null-co\",\"size\":1048576,\"read-zeroes\":true}", "-c", "read -P 0 0 512", "-c", "map", "-c", "info"],
            ["-f", "raw", "e.raw", "-c", "write 0 0", "-c", "read 0 1", "-c", "length", "-c", "map", "-c", "alloc 0"],
            ["-d", "ignore", "-f", "raw", "r.raw", "-c", "write -q 0 100k", "-c", "discard 0 100k", "-c", "read -P 0xcd 0 100k"],
            ["-U", "a.qcow2", "-c", "length"], ["-U", "-r", "a.qcow2", "-c", "length"], ["-s", "-r", "a.qcow2", "-c", "write 0 512"],
            ["-s", "-f", "raw", "r.raw", "-c", "write -P 3 999k 1", "-c", "length", "-c", "read -P 0 0 512"],
            ["-sU", "a.qcow2", "-c", "write -P 7 0 4k", "-c", "read -P 7 0 4k"], ["-c", "open -s -U a.qcow2", "-c", "length"],
            ["-CsU", "a.qcow2", "-c", "write -P 7 0 4k", "-c", "read -P 7 0 4k", "-c", "info"], ["-srU", "a.qcow2", "-c", "length", "-c", "write 0 4k"], ["-k", "-i", "threads", "a.qcow2", "-c", "length"],
            ["-i", "native", "-i", "io_uring", "a.qcow2", "-c", "length"], ["-c", "open -i threads -k a.qcow2", "-c", "length"],
            ["-k", "-i", "threads", "-n", "a.qcow2", "-c", "length"], ["-c", "open -r"], ["-c", "open -s", "-c", "length"],
            ["--image-opts", "driver=qcow2,file.filename=a.qcow2,read-only=on", "-c", "length"],
            ["--image-opts", "driver=qcow2,file.filename=a.qcow2,read-only=on", "-s", "-c", "length"],
            ["--image-opts", "driver=qcow2,file.filename=a.qcow2,read-only=off", "-r", "-c", "write 0 512", "-c", "reopen -c none", "-c", "write 512 512"],
            ["-c", "open -o read-only=on a.qcow2", "-c", "length"], ["-c", "open -r -o read-only=on a.qcow2", "-c", "length"],
            ["-c", "open -r -o read-only=off a.qcow2", "-c", "write 0 512", "-c", "reopen -r", "-c", "write 0 512", "-c", "reopen -w", "-c", "write 0 512"],
        ])
    func options(_ arguments: [String]) throws { try check(arguments) }

    @Test("an image that somebody else writes to can be looked at through a temporary overlay, by force")
    func forcedOverlay() throws {
        let folder = try Pair().ours
        let script = #"coproc Q { qemu-io a.qcow2; }; read -r -d '>' <&${Q[0]}; "$0" "$@"; status=$?; echo q >&${Q[1]}; wait; exit $status"#
        func whileHeld(_ option: String) throws -> Finished {
            let arguments = ["-c", script, folder.path("qemu-io"), option, "a.qcow2", "-c", "write -P 7 0 4k", "-c", "read -P 7 0 4k"]
            return try run("bash", arguments, in: folder.url, atMost: .seconds(60))
        }
        #expect(try whileHeld("-sU").succeeded)
        #expect(try whileHeld("-s").ending == .exited(1))
    }

    @Test(
        "options beside a name say more about the file of that name",
        arguments: [
            "file.locking=off", "file.driver=file", "file.filename=base.qcow2", "file=foo", "file.foo=bar", "filename=base.qcow2",
            "driver=qcow2,file.locking=off", "driver=file,locking=off", "driver=file,filename=base.qcow2", "driver=raw,file.driver=qcow2", "driver=blkdebug",
            "driver=raw,file.driver=qcow2,file.file.filename=a.qcow2", "driver=compress,file.driver=qcow2", "file.driver=blkdebug,file.image.locking=off",
            "driver=qcow2,file.driver=qcow2", "file.locking=off -o file.aio=threads", "cache.direct=on -o cache.no-flush=on", "l2-cache-size=1M",
        ])
    func optionsBesideName(_ options: String) throws { try check(["-c", "open -o \(options) a.qcow2", "-c", "info", "-c", "length"]) }

    @Test(
        "options beside a name of options win",
        arguments: [
            #"-o file.locking=off json:{"driver":"raw","file":{"driver":"file","filename":"a.qcow2"}}"#,
            #"-o driver=qcow2 json:{"driver":"raw","file.driver":"file","file.filename":"a.qcow2"}"#,
            #"-o file.filename=base.qcow2 json:{"driver":"qcow2","file":{"driver":"file","filename":"a.qcow2"}}"#,
        ])
    func optionsBesideOptions(_ arguments: String) throws { try check(["-c", "open \(arguments)", "-c", "length", "-c", "map"]) }

    @Test(
        "what lies above an image describes that",
        arguments: [
            "driver=compress,file.driver=qcow2,file.file.filename=a.qcow2", "driver=copy-on-read,file.driver=qcow2,file.file.filename=a.qcow2",
            "driver=raw,file.driver=qcow2,file.file.filename=a.qcow2", "driver=blkdebug,image.driver=qcow2,image.file.filename=a.qcow2",
            "driver=copy-on-read,file.driver=raw,file.file.driver=qcow2,file.file.file.filename=a.qcow2", "driver=copy-on-read,file.driver=file,file.filename=a.qcow2",
            "driver=blklogwrites,log.driver=file,log.filename=e.raw,file.driver=qcow2,file.file.filename=a.qcow2",
            "driver=snapshot-access,file.driver=qcow2,file.file.filename=a.qcow2", "driver=null-co,size=1M",
        ])
    func infoAboveImage(_ image: String) throws { try check(["--image-opts", image, "-c", "info"]) }

    @Test(
        "commands on standard input",
        arguments: ["read 0 4k\nfoo\nquit\nread 0 1k\n", "read -P 1 0 4k\n", "read 0 512", "", "\n\n", "read 0 512\naio_write 0 4k\naio_flush\nq\n",
            "length\0x\n", "len\0gth\n\0length\nlength\n", "length\0x",
        ])
    func standardInput(_ input: String) throws { try check(["a.qcow2"], input: input) }

    @Test(
        "the state of a machine lies beside the disk",
        arguments: [
            ["read -b 0 512", "write -b 0 4k", "read -b -P 0xcd 0 4k", "read -b -v 4k 512", "read -P 5 1M 100k", "info"],
            ["write -b -P 7 100M 64k", "read -b -P 7 100M 64k", "read -b 4E 512", "read -b 7000P 512", "write -b 4000P 512", "write -b 7000P 512", "map"],
            ["write -b -P 3 700G 64k", "read -b -P 3 700G 64k", "write -P 1 0 64k", "read -P 1 0 64k", "length"],
            ["read -b 0 100", "read -b 100 512", "write -b 0 100", "write -b 100 512", "write -c 0 100", "read -b 0 0", "write -b 0 0", "read -b 0 3G", "read -b 8E 512"],
            ["write -bq 0 4k", "read -bq -P 0xcd 0 4k", "write -bs pattern 64k 4k", "read -bv 64k 512", "write -bs nosuch 0 4k", "read -b -P 0xcd -s 512 -l 512 0 4k", "read -b -P 1 0 4k"],
            ["reopen -r", "write -b 0 512", "read -b 0 512"], ["write -bc 0 64k", "read -bP 0xcd 0 64k"],
        ])
    func machineState(_ commands: [String]) throws {
        try check(["a.qcow2"], commands)
        try check(["-f", "raw", "r.raw"], commands.filter { !$0.contains("pattern") && $0 != "info" })
        try check(["--image-opts", "driver=raw,file.driver=qcow2,file.file.filename=a.qcow2"], commands.filter { $0 != "info" && $0 != "map" })
    }

    @Test("machine state goes into snapshots, and is not seen when the disk grows over it")
    func machineStateInSnapshots() throws {
        let pair = try Pair()
        func ours(_ commands: [String]) throws -> Finished { try run(pair.ours.path("qemu-io"), commands.flatMap { ["-c", $0] } + ["a.qcow2"], in: pair.ours.url) }
        #expect(try ours(["write -b -P 7 0 64k"]).succeeded)
        try QEMU.img("snapshot", "-c", "s", "a.qcow2", in: pair.ours)
        #expect(try ours(["write -b -P 8 0 64k", "read -b -P 8 0 64k"]).succeeded)
        // QEMU reads what we have written.
        try QEMU.io("a.qcow2", ["read -b -P 8 0 64k"], in: pair.ours)
        try mustRun(Strata.binary, ["img", "snapshot", "-a", "s", "a.qcow2"], in: pair.ours.url)
        #expect(try ours(["read -b -P 7 0 64k"]).succeeded)
        try mustRun(Strata.binary, ["img", "resize", "a.qcow2", "1G"], in: pair.ours.url)
        #expect(try ours(["read -P 0 8M 1016M", "read -b -P 0 0 64k"]).succeeded)
        try QEMU.mustFindClean("a.qcow2", in: pair.ours)
    }

    @Test("at a terminal there is a prompt that completes commands, with a history that the next session knows")
    func prompt() throws {
        let folder = try Pair().ours
        let driver = Strata.root.appending(path: "Tests/Conformance/shell-terminal.py").path
        func session(_ steps: [[String]]) throws -> Finished {
            let text = String(decoding: try JSONSerialization.data(withJSONObject: steps), as: UTF8.self)
            return try run(Strata.python, [driver, folder.path("state"), text, Strata.binary, "io", "a.qcow2"], in: folder.url)
        }
        let first = try session([["io> ", "len\t\r"], ["8 MiB", ""], ["io> ", "read -P 3 0 512\r"], ["read 512/512", ""], ["io> ", "q\r"]])
        #expect(first.succeeded, "\(first)")
        let second = try session([["io> ", "\u{1b}[A\u{1b}[A\r"], ["read 512/512 bytes at offset 0", ""], ["io> ", "\u{4}"]])
        #expect(second.succeeded, "\(second)")
        // These keys end qemu-io by SIGINT and SIGQUIT, whatever has been typed so far. What was written before is on the disk.
        #expect(try session([["io> ", "write -P 9 0 64k\r"], ["wrote 65536/65536", ""], ["io> ", "len\u{3}"]]).ending == .exited(256 - 2))
        try QEMU.io("a.qcow2", ["read -P 9 0 64k"], in: folder)
        #expect(try session([["io> ", "\u{1c}"]]).ending == .exited(256 - 3))
    }

    @Test("random scripts leave the same bytes and print the same words", arguments: 0..<12)
    func randomScripts(_ number: UInt64) throws {
        var generator = SeededGenerator(seed: 0x10 + number)
        func size(_ limit: Int) -> String {
            let value = Int.random(in: 0..<limit, using: &generator)
            return Bool.random(using: &generator) ? "\(value & ~511)" : "\(value)"
        }
        // Over an allocated cluster QEMU refuses compressed data and we do not, so there is some at the beginning only.
        let commands = ["write -c -P 9 \(Int.random(in: 64..<128, using: &generator) * 65536) 64k"] + (0..<25).map { _ -> String in
            let pattern = Int.random(in: 0...255, using: &generator)
            return switch Int.random(in: 0..<11, using: &generator) {
            case 0...3: "write -P \(pattern) \(size(9 << 20)) \(size(300_000))"
            case 4: "write -z\(Bool.random(using: &generator) ? "u" : "") \(size(9 << 20)) \(size(1 << 20))"
            case 5: "discard \(size(9 << 20)) \(size(1 << 20))"
            case 6: "writev -P \(pattern) \(size(8 << 20)) \(size(5000)) \(size(70_000)) \(size(3000))"
            case 7: "read -v \(size(8 << 20)) \(size(100))"
            case 8: "alloc \(size(8 << 20)) \(size(1 << 20))"
            case 9: ["map", "flush", "length", "reopen -r", "reopen -w"][Int.random(in: 0..<5, using: &generator)]
            default: "read -P \(pattern) \(size(8 << 20)) \(size(200))"
            }
        }
        try check(["a.qcow2"], commands)
    }
}
