import Foundation
import Testing

@Suite("bitmap and convert --bitmaps do what qemu-img does", .serialized)
struct BitmapCommandTests {
    /// Nodes without a name have different numbers in the two programs.
    private static func withoutNames(_ outcome: ToolPair.Outcome) -> ToolPair.Outcome {
        var outcome = outcome
        outcome.errors = outcome.errors.replacing(#/#block[0-9]+/#, with: "#block")
        return outcome
    }

    private static func bitmaps(of name: String, in directory: URL) throws -> String {
        let info = try ToolPair.run(ToolPair.qemu, ["info", "--output=json", name], in: directory)
        let json = try #require(try JSONSerialization.jsonObject(with: Data(info.output.utf8)) as? [String: Any])
        let data = (json["format-specific"] as? [String: Any])?["data"] as? [String: Any]
        guard let bitmaps = data?["bitmaps"] else { return "none" }
        return String(decoding: try JSONSerialization.data(withJSONObject: bitmaps, options: .sortedKeys), as: UTF8.self)
    }

    @Test("bitmaps are made, removed, cleared, switched and merged, and refusals have the same words")
    func actions() throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare(CommandScript.standardImages + [["create", "-q", "-f", "qcow2", "-o", "compat=0.10", "v2.qcow2", "1M"]])
        let commands = [
            "", "b.qcow2 bm", "--add b.qcow2 bm", "--add b.qcow2 bm", "--add -g 4k b.qcow2 bm2", "--add --disable b.qcow2 bm3", "--disable b.qcow2 bm", "--enable b.qcow2 bm3",
            "--clear b.qcow2 bm", "--merge bm2 b.qcow2 bm", "--remove b.qcow2 bm2", "--remove b.qcow2 nosuch", "--clear b.qcow2 nosuch", "--enable b.qcow2 nosuch",
            "--disable b.qcow2 nosuch", "--merge nosuch b.qcow2 bm", "--merge bm b.qcow2 nosuch", "--add a.raw bm", "--add -f raw a.raw bm", "--add nosuch bm",
            "--add -g 3 b.qcow2 x", "--add -g 256 b.qcow2 x", "--add -g x b.qcow2 x", "--clear -g 64k b.qcow2 bm", "-b e.qcow2 --add b.qcow2 y", "-F qcow2 --merge bm b.qcow2 bm3",
            "-b b.qcow2 -F qcow2 --merge bm e.qcow2 n", "--add -b b.qcow2 -F qcow2 --merge bm e.qcow2 n", "--add --add b.qcow2 z", "--enable --disable b.qcow2 bm",
            "--add --remove b.qcow2 t", "--add --clear --enable b.qcow2 t", "--object foo --add b.qcow2 q", "--image-opts --add driver=qcow2,file.filename=b.qcow2 q",
            "--image-opts -f qcow2 --add b q", "--add b.qcow2 x y", "--add b.qcow2 ''", "--merge", "-x", "-b nosuch -F raw --merge x b.qcow2 bm", "-b a.raw -F raw --merge x b.qcow2 bm",
            "-b e.qcow2 --merge nosuch b.qcow2 bm", "--merge bm --clear b.qcow2 bm", "-f foo --add b.qcow2 v", "-q --add b.qcow2 v", "--add v2.qcow2 b",
            "-b long.qcow2 -F qcow2 --merge x b.qcow2 bm", "-g 0 --add b.qcow2 standard", "-g 0 --clear b.qcow2 standard", "-g -1 --add b.qcow2 v", "-g -1k --add b.qcow2 v", "-g 1 --add b.qcow2 v",
        ]
        for command in commands {
            let arguments = ["bitmap"] + command.split(separator: " ").map { $0 == "''" ? "" : String($0) }
            #expect(Self.withoutNames(try pair.runOurs(arguments)) == Self.withoutNames(try pair.runTheirs(arguments)), "qemu-img bitmap \(command)")
            for name in ["b.qcow2", "e.qcow2"] {
                #expect(try Self.bitmaps(of: name, in: pair.ours) == Self.bitmaps(of: name, in: pair.theirs), "after bitmap \(command)")
            }
        }
        #expect(try ToolPair.run(ToolPair.qemu, ["check", "b.qcow2"], in: pair.ours).status == 0)
    }

    @Test("bitmaps of an image whose backing file is gone can be changed, and the image keeps its name")
    func withoutBackingFile() throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare(CommandScript.standardImages + [["bitmap", "--add", "long.qcow2", "bm"]])
        try pair.removeImages(["a.raw"])
        for command in ["--add long.qcow2 x", "--merge bm long.qcow2 x", "-b long.qcow2 -F qcow2 --add --merge bm e.qcow2 y", "--remove long.qcow2 bm"] {
            let arguments = ["bitmap"] + command.split(separator: " ").map(String.init)
            #expect(try pair.runOurs(arguments) == pair.runTheirs(arguments), "qemu-img bitmap \(command)")
            for name in ["long.qcow2", "e.qcow2"] { #expect(try Self.bitmaps(of: name, in: pair.ours) == Self.bitmaps(of: name, in: pair.theirs), "after bitmap \(command)") }
        }
        #expect(try ToolPair.run(ToolPair.qemu, ["info", "long.qcow2"], in: pair.ours).output.contains("backing file: a.raw"))
    }

    @Test("convert --bitmaps takes them along, and refuses where there is no place for them")
    func convert() throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare(
            CommandScript.standardImages + [
                ["bitmap", "--add", "b.qcow2", "bm"], ["bitmap", "--add", "--disable", "-g", "4k", "b.qcow2", "bm2"], ["io", "-c", "write -P 4 2M 1M", "b.qcow2"],
            ])
        for command in [
            "--bitmaps b.qcow2 o", "--bitmaps -O qcow2 b.qcow2 o", "--bitmaps -O qcow2 -o compat=0.10 b.qcow2 o2", "--bitmaps -O qcow2 b.qcow2 b.qcow2 o2",
            "--bitmaps -n -O raw b.qcow2 a.raw", "--bitmaps -O qcow2 -B a.raw -F raw b.qcow2 e.qcow2 o2", "--bitmaps -O qcow2 -B a.raw a.raw o2", "--bitmaps -O raw -B a.raw a.raw o2",
            "--bitmaps -c -O raw a.raw o2", "--bitmaps -O foo a.raw o2", "--bitmaps -O qcow2 -o foo=1 a.raw o2", "--bitmaps -c -O raw b.qcow2 e.qcow2 o2", "--bitmaps -n -O qcow2 b.qcow2 e.qcow2 a.raw",
            "--bitmaps -O qcow2 a.raw o2", "--bitmaps -O qcow2 e.qcow2 o3", "-O qcow2 b.qcow2 o4",
        ] {
            let arguments = ["convert"] + command.split(separator: " ").map(String.init)
            #expect(try pair.runOurs(arguments) == pair.runTheirs(arguments), "qemu-img convert \(command)")
        }
        for name in ["o", "o3", "o4"] { #expect(try Self.bitmaps(of: name, in: pair.ours) == Self.bitmaps(of: name, in: pair.theirs), "\(name)") }
        #expect(try ToolPair.run(ToolPair.qemu, ["check", "o"], in: pair.ours).status == 0)
    }

    @Test("a bitmap that cannot be filled is not left behind empty")
    func convertToAnotherSize() throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare([
            ["create", "-q", "-f", "qcow2", "s", "1M"], ["bitmap", "--add", "s", "b1"], ["create", "-q", "-f", "qcow2", "t", "2M"], ["bitmap", "--add", "t", "other"],
            ["create", "-q", "-f", "qcow2", "same", "1M"], ["bitmap", "--add", "same", "b1"],
        ])
        for target in ["t", "same"] {
            let arguments = ["convert", "-n", "--bitmaps", "-O", "qcow2", "s", target]
            #expect(try pair.runOurs(arguments) == pair.runTheirs(arguments))
            #expect(try Self.bitmaps(of: target, in: pair.ours) == Self.bitmaps(of: target, in: pair.theirs))
        }
    }

    @Test("a bitmap that was in use when its writer died is refused, left out if that is asked for, and can be removed")
    func broken() throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare([["create", "-q", "-f", "qcow2", "b.qcow2", "10M"], ["bitmap", "--add", "b.qcow2", "lost"]])
        for directory in [pair.ours, pair.theirs] {
            // The writer dies without closing the image.
            _ = try ToolPair.run("/usr/bin/qemu-io", ["-c", "write 0 64k", "-c", "abort", "b.qcow2"], in: directory)
            let made = try ToolPair.run(ToolPair.qemu, ["bitmap", "--add", "b.qcow2", "kept"], in: directory)
            #expect(made.status == 0, "\(made)")
        }
        for command in [
            "convert --bitmaps -O qcow2 b.qcow2 o1", "convert --bitmaps --skip-broken-bitmaps -O qcow2 b.qcow2 o2", "convert --skip-broken-bitmaps -O qcow2 b.qcow2 o3",
            "bitmap --add b.qcow2 lost", "bitmap --clear b.qcow2 lost", "bitmap --enable b.qcow2 lost", "bitmap --disable b.qcow2 lost", "bitmap --merge lost b.qcow2 kept",
            "bitmap --merge kept b.qcow2 lost", "bitmap --remove b.qcow2 lost", "convert --bitmaps -O qcow2 b.qcow2 o4",
        ] {
            let arguments = command.split(separator: " ").map(String.init)
            #expect(Self.withoutNames(try pair.runOurs(arguments)) == Self.withoutNames(try pair.runTheirs(arguments)), "qemu-img \(command)")
        }
        for name in ["b.qcow2", "o2", "o4"] { #expect(try Self.bitmaps(of: name, in: pair.ours) == Self.bitmaps(of: name, in: pair.theirs), "\(name)") }
    }
}
