import BlockGraph
import QAPIRuntime
import StorageSchema
import StrataBase
import Testing

@Suite("file names")
struct FileNameTests {
    @Test(
        "every way to write a name becomes the options it stands for",
        arguments: [
            ("disk.img", #"{"driver": "file", "filename": "disk.img"}"#),
            ("/a/b:c", #"{"driver": "file", "filename": "/a/b:c"}"#),
            ("./a:b", #"{"driver": "file", "filename": "./a:b"}"#),
            ("file:disk.img", #"{"driver": "file", "filename": "disk.img"}"#),
            ("file:a:b", #"{"driver": "file", "filename": "a:b"}"#),
            ("file:///a", #"{"driver": "file", "filename": "///a"}"#),
            ("host_device:/dev/sda", #"{"driver": "host_device", "filename": "/dev/sda"}"#),
            ("null-co://", #"{"driver": "null-co"}"#),
            ("null-aio://", #"{"driver": "null-aio"}"#),
            ("nbd:localhost:10809", #"{"driver": "nbd", "server": {"type": "inet", "host": "localhost", "port": "10809"}}"#),
            ("nbd:h:1:exportname=a:b", #"{"driver": "nbd", "server": {"type": "inet", "host": "h", "port": "1"}, "export": "a:b"}"#),
            ("nbd:[::1]:1", #"{"driver": "nbd", "server": {"type": "inet", "host": "::1", "port": "1"}}"#),
            ("nbd:unix:/s", #"{"driver": "nbd", "server": {"type": "unix", "path": "/s"}}"#),
            ("nbd:unix:/s:exportname=x", #"{"driver": "nbd", "server": {"type": "unix", "path": "/s"}, "export": "x"}"#),
            ("nbd://h", #"{"driver": "nbd", "server": {"type": "inet", "host": "h", "port": "10809"}}"#),
            ("nbd://h/", #"{"driver": "nbd", "server": {"type": "inet", "host": "h", "port": "10809"}}"#),
            ("nbd://u@h:2/a/b", #"{"driver": "nbd", "server": {"type": "inet", "host": "h", "port": "2"}, "export": "a/b"}"#),
            ("nbd+tcp://[fe80::1]:3/%20x", #"{"driver": "nbd", "server": {"type": "inet", "host": "fe80::1", "port": "3"}, "export": " x"}"#),
            ("nbd://[fe80::1]", #"{"driver": "nbd", "server": {"type": "inet", "host": "fe80::1", "port": "10809"}}"#),
            ("nbd+unix:///e?socket=/a%20b", #"{"driver": "nbd", "server": {"type": "unix", "path": "/a b"}, "export": "e"}"#),
            ("nbd+unix://?socket=/s", #"{"driver": "nbd", "server": {"type": "unix", "path": "/s"}}"#),
            ("blkdebug::d", #"{"driver": "blkdebug", "image": {"driver": "file", "filename": "d"}}"#),
            ("blkdebug:r:file:d", #"{"driver": "blkdebug", "config": "r", "image": {"driver": "file", "filename": "d"}}"#),
            ("blkverify:a:b", #"{"driver": "blkverify", "raw": {"driver": "file", "filename": "a"}, "test": {"driver": "file", "filename": "b"}}"#),
        ])
    func options(name: String, expected: String) throws {
        #expect(try JSONValue.object(FileName(parsing: name).options) == JSONValue(parsing: expected))
        #expect(try ImageName.options(name, format: nil)["file"] == JSONValue(parsing: expected))
        #expect(try ImageName.options(name, format: "qcow2")["driver"] == "qcow2")
    }

    @Test(
        "names that stand for nothing are refused with a message that says why",
        arguments: [
            ("", "The 'file' block driver requires a file name"), ("file:", "The 'file' block driver requires a file name"),
            ("foo:x", "Unknown protocol 'foo'"), ("a:b", "Unknown protocol 'a'"), ("raw:disk", "Unknown protocol 'raw'"),
            ("null-co:", "The only allowed filename for this driver is 'null-co://'"),
            ("null-co://x", "The only allowed filename for this driver is 'null-co://'"), ("nbd:", "NBD server address missing"),
            ("nbd:localhost", "error parsing address 'localhost'"), ("nbd:localhost:", "error parsing address 'localhost:'"),
            ("nbd://", "No valid URL specified"), ("nbd+unix:///e", "No valid URL specified"), ("nbd+unix://h/e?socket=/s", "No valid URL specified"),
            ("nbd://h/%zz", "No valid URL specified"), ("nbd://h/%00", "No valid URL specified"), ("nbds://h", "Unknown protocol 'nbds'"),
            ("json:[", "Could not parse the JSON options: JSON parse error, premature EOI"), ("json:{}", "Must specify either driver or file"),
            ("json:5", "Invalid JSON object given"), ("json:{\"filename\": \"x\"}", "Must specify either driver or file"),
        ])
    func refusals(name: String, expected: String) {
        let failure = #expect(throws: BlockError.self) { try ImageName.options(name, format: nil) }
        #expect(failure?.message == expected)
    }

    @Test("a directory as a disk is refused by name")
    func fat() {
        for name in ["fat:/tmp", "fat:rw:/tmp"] {
            let failure = #expect(throws: BlockError.self) { try FileName(parsing: name) }
            #expect(failure?.message.contains("'fat:'") == true)
        }
    }

    @Test("names inside names end somewhere")
    func nested() {
        let name = String(repeating: "blkdebug::", count: 100_000) + "disk"
        let failure = #expect(throws: BlockError.self) { try FileName(parsing: name) }
        #expect(failure?.message.contains("levels deep") == true)
    }

    @Test("json: names in either kind of quotes, with dots and without, are the same")
    func json() throws {
        let plain = try ImageName.options(#"json:{"driver": "qcow2", "file": {"driver": "file", "filename": "a"}}"#, format: nil)
        for name in ["json:{'driver': 'qcow2', 'file': {'driver': 'file', 'filename': 'a'}}", "json:{'driver': 'qcow2', 'file.driver': 'file', 'file.filename': 'a'}"] {
            #expect(try JSONValue.object(ImageName.options(name, format: nil)) == .object(plain))
        }
        #expect(try ImageName.options("json:{'file': {'filename': 'nbd:x'}}", format: "raw")["file"] == ["filename": "nbd:x", "driver": "file"])
        let failure = #expect(throws: BlockError.self) { try ImageName.options("json:{'driver': 'raw', 'file': 'x'}", format: "qcow2") }
        #expect(failure?.message == "Driver specified twice")
    }

    @Test("a description that nests deeper than any sensible one is refused, however it says so")
    func deepDescriptions() {
        let dots = Array(repeating: "a", count: 100_000).joined(separator: ".")
        var objects = "1"
        for _ in 0..<1000 { objects = "{\"\(Array(repeating: "a", count: 100).joined(separator: "."))\": \(objects)}" }
        for text in ["{\"\(dots)\": 1}", objects, String(repeating: "{\"file\":", count: 1000) + "1" + String(repeating: "}", count: 1000)] {
            let failure = #expect(throws: BlockError.self) { try ImageName.options("json:" + text, format: nil) }
            #expect(failure?.message.contains("nested too deeply") == true)
        }
    }

    @Test("names of backing files are relative to the directory of the image, unless they are absolute or say how to reach them")
    func backingNames() {
        for (name, image, expected) in [
            ("base", "dir/top", "dir/base"), ("base", "top", "base"), ("../base", "/a/b/top", "/a/b/../base"), ("/base", "/a/top", "/base"),
            ("nbd://h/x", "/a/top", "nbd://h/x"), ("json:{}", "/a/top", "json:{}"), ("a:b", "/a/top", "a:b"), ("./a:b", "/a/top", "/a/./a:b"),
            // A slash is a slash, also with an accent behind it.
            ("/\u{301}base", "/a/top", "/\u{301}base"), ("base", "/a/\u{301}top", "/a/base"),
        ] {
            #expect(BackingReference.resolve(name, relativeTo: image) == expected)
        }
        let failure = #expect(throws: BlockError.self) { try BackingReference.options(file: "base", format: "raw", imageFilename: nil) }
        #expect(failure?.message.contains("'base'") == true)
    }

    @Test("a driver that the schema knows and the build lacks is refused as such")
    func missingDriver() throws {
        let registry = DriverRegistry([])
        let failure = #expect(throws: BlockError.self) { try registry.driver(named: "nbd") }
        #expect(failure?.message == "Driver 'nbd' is not available in this build")
        let unknown = #expect(throws: BlockError.self) { try registry.driver(named: "nosuch") }
        #expect(unknown?.message == "Unknown driver 'nosuch'")
    }
}
