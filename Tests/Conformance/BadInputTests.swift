import Foundation
import StrataTesting
import Testing

@Suite("bad input")
struct BadInputTests {
    struct Mistake: CustomTestStringConvertible, Sendable {
        let words: [String]
        let names: [String]
        var testDescription: String { words.joined(separator: " ") }

        init(_ line: String, naming names: String...) {
            words = line.split(separator: " ").map(String.init)
            self.names = names
        }
    }

    @Test("a wrong command line gets one clear error and exit status 1", arguments: [
        Mistake("img frobnicate", naming: "frobnicate"),
        Mistake("img info", naming: ""),
        Mistake("img info missing.qcow2", naming: "missing.qcow2"),
        Mistake("img info -f nosuchformat plain.raw", naming: "nosuchformat"),
        Mistake("img info --output=xml plain.raw", naming: "xml"),
        Mistake("img info --frobnicate plain.raw", naming: "frobnicate"),
        Mistake("img info -f qcow2 plain.raw", naming: "plain.raw"),
        Mistake("img check -f qcow2 plain.raw", naming: "plain.raw"),
        Mistake("img convert -f raw -O nosuchformat plain.raw out", naming: "nosuchformat"),
        Mistake("img convert -f raw -O qcow2 missing.raw out", naming: "missing.raw"),
        Mistake("img convert -f raw -O qcow2 -o cluster_size=1000 plain.raw out", naming: ""),
        Mistake("img convert -f raw -O qcow2 -o nosuchoption=1 plain.raw out", naming: "nosuchoption"),
        Mistake("daemon --frobnicate", naming: "frobnicate"),
        Mistake("daemon --blockdev driver=nosuchdriver,node-name=x", naming: "nosuchdriver"),
        Mistake("daemon --blockdev driver=file,node-name=x", naming: "filename"),
        Mistake("daemon --blockdev driver=file,node-name=x,filename=missing.raw", naming: "missing.raw"),
        Mistake("daemon --blockdev driver=file,node-name=x,filename=plain.raw,frobnicate=1", naming: "frobnicate"),
        Mistake("daemon --blockdev driver=file,node-name=x,filename=plain.raw,read-only=maybe", naming: "read-only"),
        Mistake("daemon --blockdev {broken", naming: ""),
        Mistake("daemon --export type=nbd,id=e,node-name=nosuchnode,name=e", naming: ""),
        Mistake("daemon --monitor chardev=nosuchchardev", naming: "nosuchchardev"),
    ])
    func wrongCommandLine(mistake: Mistake) throws {
        let folder = try TemporaryFolder()
        try folder.write(repeatElement(0x55, count: 4096), to: "plain.raw")
        let finished = try run(Strata.binary, mistake.words, in: folder.url, atMost: .seconds(20))
        expectClearError(finished, naming: mistake.names.filter { !$0.isEmpty })
        #expect(try folder.names == ["plain.raw"], "a failed command left files behind")
    }

    @Test("a limit on the size of files is an error like any other, and not the end of the program", arguments: [
        "img convert -f raw -O raw source.raw new.raw", "img convert -f raw -O qcow2 source.raw new.qcow2", "img resize -f raw small.raw 1M",
        "img create -q -f raw -o preallocation=full new.raw 1M", "img dd -f raw -O raw if=source.raw of=new.raw",
    ])
    func fileSizeLimit(line: String) throws {
        let folder = try TemporaryFolder()
        try folder.write(repeatElement(0x55, count: 1 << 20), to: "source.raw")
        try folder.write([0x55], to: "small.raw")
        let finished = try run("/bin/sh", ["-c", "ulimit -f 100; exec \"$0\" \(line)", Strata.binary], in: folder.url, atMost: .seconds(20))
        expectClearError(finished, naming: ["too large"])
    }

    @Test("a complaint about a secret does not tell it", arguments: [
        "secret,id=s,data=hunter2,format=bad", "secret,data=hunter,,2,id=s,format=bad", #"{"qom-type":"secret","id":"s","data":"hunter2","format":"bad"}"#,
        #"{"qom-type":"secret","id":"s","data":"hunter2""#, "secret,id=s,data=hunter2,file=nowhere",
    ])
    func secrets(definition: String) throws {
        let folder = try TemporaryFolder()
        let finished = try run(Strata.binary, ["daemon", "--object", definition], in: folder.url, atMost: .seconds(20))
        expectClearError(finished, naming: ["--object"])
        #expect(!finished.errorText.contains("hunter"), "\(finished)")
    }

    @Test("a name that is not UTF-8 is refused, and no other file is made or shown in its place", arguments: [
        "img create -q -f raw NAME 1M", "img convert -f raw -O qcow2 plain.raw NAME", "img info NAME", "daemon --pidfile NAME",
    ])
    func notUTF8(line: String) throws {
        let folder = try TemporaryFolder()
        try folder.write(repeatElement(0x55, count: 4096), to: "plain.raw")
        // What somebody would find who took the byte for a sign of something unreadable.
        try folder.write(repeatElement(0x55, count: 4096), to: "x\u{fffd}.img")
        let script = "exec \"$0\" " + line.replacing("NAME", with: "\"$(printf 'x\\351.img')\"")
        let finished = try run("/bin/sh", ["-c", script, Strata.binary], in: folder.url, atMost: .seconds(20))
        expectClearError(finished, naming: ["not UTF-8"])
        #expect(try Set(folder.names) == ["plain.raw", "x\u{fffd}.img"], "a failed command left files behind")
        #expect(try folder.read("x\u{fffd}.img").allSatisfy { $0 == 0x55 })
    }

    @Test("a failed create says why and leaves no file", arguments: [
        Mistake("-f qcow2 new.qcow2", naming: "size"),
        Mistake("-f qcow2 new.qcow2 12X", naming: ""),
        Mistake("-f qcow2 new.qcow2 -- -1", naming: ""),
        Mistake("-f qcow2 -o cluster_size=1000 new.qcow2 1M", naming: "luster size"),
        Mistake("-f qcow2 -o cluster_size=4M new.qcow2 1M", naming: "luster size"),
        Mistake("-f qcow2 -o cluster_size=256 new.qcow2 1M", naming: "luster size"),
        Mistake("-f qcow2 -o compat=2.0 new.qcow2 1M", naming: "2.0"),
        Mistake("-f qcow2 -o nosuchoption=on new.qcow2 1M", naming: "nosuchoption"),
        Mistake("-f qcow2 -o refcount_bits=3 new.qcow2 1M", naming: ""),
        Mistake("-f qcow2 -o refcount_bits=64,compat=0.10 new.qcow2 1M", naming: ""),
        Mistake("-f qcow2 -o lazy_refcounts=on,compat=0.10 new.qcow2 1M", naming: ""),
        Mistake("-f qcow2 -b missing.qcow2 -F qcow2 new.qcow2", naming: "missing.qcow2"),
        Mistake("-f qcow2 -b plain.raw -F qcow2 new.qcow2", naming: "qcow2"),
        Mistake("-f qcow2 -b plain.raw new.qcow2", naming: "format"),
        Mistake("-f qcow2 -o cluster_size=512 new.qcow2 8E", naming: ""),
        Mistake("-f nosuchformat new.qcow2 1M", naming: "nosuchformat"),
        Mistake("-f qcow2 nosuchfolder/new.qcow2 1M", naming: "nosuchfolder/new.qcow2"),
        Mistake("-f qcow2 afolder 1M", naming: "afolder"),
    ])
    func failedCreate(mistake: Mistake) throws {
        let folder = try TemporaryFolder()
        try folder.write(repeatElement(0x55, count: 4096), to: "plain.raw")
        try FileManager.default.createDirectory(atPath: folder.path("afolder"), withIntermediateDirectories: false)
        let finished = try run(Strata.binary, ["img", "create"] + mistake.words, in: folder.url)
        expectClearError(finished, naming: mistake.names.filter { !$0.isEmpty })
        #expect(try folder.names == ["afolder", "plain.raw"], "a failed create left files behind")
    }

    @Test("a create that runs out of space leaves no file")
    func noSpace() throws {
        let folder = try TemporaryFolder()
        // A limit on the size of files stands in for a full disk.
        let finished = try run(
            "sh", ["-c", "trap '' XFSZ; ulimit -f 64; exec \"$1\" img create -f qcow2 -o preallocation=full new.qcow2 10M", "sh", Strata.binary],
            in: folder.url)
        expectClearError(finished)
        #expect(try folder.names == [])
    }

    @Test("random damage to an image never traps", arguments: 0..<(extendedRun ? 400 : 24))
    func randomDamage(round: Int) throws {
        let folder = try TemporaryFolder()
        let seed = runSeed &+ UInt64(round)
        var generator = SeededGenerator(seed: seed)
        let sound = ["v3-512.qcow2", "v2-4k.qcow2", "refcount-1.qcow2", "compressed-512.qcow2", "snapshots.qcow2", "zero-clusters.qcow2"]
        let name = sound[round % sound.count]
        var image = try SampleImages.folder.get().read(name)
        for _ in 0..<Int.random(in: 1...6, using: &generator) {
            // Mostly metadata: the header, or eight bytes somewhere in the file.
            let near = Bool.random(using: &generator) ? 112 : image.count - 8
            let at = Int.random(in: 0..<near, using: &generator)
            let value: UInt64 = [0, .max, 1 << 63, generator.next(), generator.next() % 65536, 1 << UInt64.random(in: 0..<64, using: &generator)]
                .randomElement(using: &generator) ?? 0
            for index in 0..<8 where at + index >= 8 { image[at + index] = UInt8(truncatingIfNeeded: value >> (56 - 8 * UInt64(index))) }
        }
        try folder.write(image, to: "damaged.qcow2")
        for words in [
            ["info", "-f", "qcow2", "damaged.qcow2"], ["check", "-f", "qcow2", "damaged.qcow2"],
        ] {
            let finished = try run(Strata.binary, ["img"] + words, in: folder.url, atMost: .seconds(30))
            guard case .exited = finished.ending else {
                Issue.record("round \(round), seed \(seed): a trap in \(finished)")
                continue
            }
        }
        // The guest's view, through the daemon, at a few places; the daemon must live on.
        let daemon = try Daemon(in: folder)
        if (try? daemon.serve("damaged.qcow2")) != nil, let client = try? PlainNBDClient(path: daemon.nbdPath, export: "disk") {
            for _ in 0..<20 where client.size >= 4096 {
                let offset = Int.random(in: 0...Int(min(client.size, 1 << 40) - 4096), using: &generator)
                if Bool.random(using: &generator) {
                    do { _ = try client.read(4096, at: offset) } catch is PlainNBDClient.Refusal {}
                } else {
                    do { try client.write([UInt8](repeating: 1, count: 4096), at: offset) } catch is PlainNBDClient.Refusal {}
                }
            }
        }
        #expect(try daemon.monitor.execute("query-version").object != nil, "round \(round), seed \(seed): the daemon is gone")
    }
}
