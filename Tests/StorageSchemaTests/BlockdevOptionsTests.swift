import QAPIRuntime
import StorageSchema
import Testing

@Suite("Block device options")
struct BlockdevOptionsTests {
    @Test("a nested definition decodes to typed values and encodes to the same JSON")
    func nestedDefinitionRoundTrips() throws {
        let json = try JSONValue(
            parsing: """
                {"driver": "qcow2", "node-name": "disk", "cache": {"direct": true}, "backing": null, "overlap-check": "constant",
                 "file": {"driver": "file", "filename": "disk.qcow2", "aio": "io_uring"}}
                """)
        let options = try BlockdevOptions(decoding: json)
        let file = BlockdevOptions(.file(BlockdevOptionsFile(filename: "disk.qcow2", aio: .ioUring)))
        let expected = BlockdevOptions(
            .qcow2(BlockdevOptionsQcow2(file: .definition(file), backing: .null, overlapCheck: .mode(.constant))), nodeName: "disk",
            cache: BlockdevCacheOptions(direct: true))
        #expect(options == expected)
        #expect(options.json == json)
    }

    @Test("dotted text and JSON describe the same node")
    func dottedTextMatchesJSON() throws {
        let (value, mode) = try KeyValueParser.parseArgument(
            "raw,node-name=r,offset=512,read-only=on,file.driver=file,file.filename=a,,b,file.cache.direct=off", impliedKey: "driver")
        let options = try BlockdevOptions(decoding: value, mode: mode)
        let json: JSONValue = [
            "driver": "raw", "node-name": "r", "offset": 512, "read-only": true,
            "file": ["driver": "file", "filename": "a,b", "cache": ["direct": false]],
        ]
        #expect(options.json == json)
    }

    @Test(
        "a bad definition gets QEMU's sentence, with the path of the parameter",
        arguments: [
            (#"{}"#, "Parameter 'driver' is missing"),
            (#"{"driver": "nope"}"#, "Parameter 'driver' does not accept value 'nope'"),
            (#"{"driver": 3}"#, "Invalid parameter type for 'driver', expected: string"),
            (#"{"driver": "null-co", "size": "x"}"#, "Invalid parameter type for 'size', expected: integer"),
            (#"{"driver": "null-co", "size": 18446744073709551615}"#, "Invalid parameter type for 'size', expected: integer"),
            (#"{"driver": "null-co", "size": 1.5}"#, "Invalid parameter type for 'size', expected: integer"),
            (#"{"driver": "null-co", "read-only": 1}"#, "Invalid parameter type for 'read-only', expected: boolean"),
            (#"{"driver": "null-co", "foo": 1}"#, "Parameter 'foo' is unexpected"),
            (#"{"driver": "raw", "file": 3}"#, "Invalid parameter type for 'file', expected: BlockdevRef"),
            (
                #"{"driver": "raw", "file": {"driver": "file", "filename": 3}}"#,
                "Invalid parameter type for 'file.filename', expected: string"
            ),
            (#"{"driver": "raw", "file": {"driver": "file"}}"#, "Parameter 'file.filename' is missing"),
            (#"{"driver": "qcow2", "file": "x", "backing": 7}"#, "Invalid parameter type for 'backing', expected: BlockdevRefOrNull"),
            (#"{"driver": "qcow2", "file": "x", "overlap-check": "zz"}"#, "Parameter 'overlap-check' does not accept value 'zz'"),
        ])
    func badDefinitionIsNamed(text: String, message: String) throws {
        let json = try JSONValue(parsing: text)
        let error = #expect(throws: QMPError.self) { try BlockdevOptions(decoding: json) }
        #expect(error?.message == message)
    }

    @Test("a definition nested beyond reason is refused and does not exhaust the stack")
    func endlessNestingIsRefused() throws {
        var json: JSONValue = "x"
        for _ in 0..<500 { json = ["driver": "raw", "file": json] }
        let nested = json
        let error = #expect(throws: QMPError.self) { try BlockdevOptions(decoding: nested) }
        #expect(error?.message == "Parameters are nested too deeply")
    }
}
