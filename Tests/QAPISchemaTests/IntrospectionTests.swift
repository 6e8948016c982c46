import Foundation
import QAPIGenerator
import QAPISchema
import StrataBase
import Testing

@Suite("Introspection and generated names")
struct IntrospectionTests {
    private func schema(_ text: String) throws -> Schema { try SchemaReader.schema(root: "main.json") { _ in Array(text.utf8) } }

    @Test("only what commands and events reach is described, and names of types are masked")
    func masking() throws {
        let schema = try schema(
            "{ 'enum': 'Kind', 'data': [ 'one', 'two' ] } { 'struct': 'Unused', 'data': {} } { 'struct': 'One', 'data': { '*x': 'uint8' } }"
                + "{ 'union': 'Thing', 'base': { 'kind': 'Kind' }, 'discriminator': 'kind', 'data': { 'one': 'One' } } { 'command': 'get', 'returns': ['Thing'] }"
        )
        #expect(
            IntrospectionEmitter.lines(of: schema).joined(separator: "\n") == """
                [
                {"name": "get", "meta-type": "command", "arg-type": "0", "ret-type": "[1]"},
                {"name": "0", "meta-type": "object", "members": []},
                {"name": "1", "meta-type": "object", "members": [{"name": "kind", "type": "2"}], "tag": "kind", "variants": [{"case": "one", "type": "3"}, {"case": "two", "type": "0"}]},
                {"name": "[1]", "meta-type": "array", "element-type": "1"},
                {"name": "2", "meta-type": "enum", "members": [{"name": "one"}, {"name": "two"}], "values": ["one", "two"]},
                {"name": "3", "meta-type": "object", "members": [{"name": "x", "type": "int", "default": null}]},
                {"name": "int", "meta-type": "builtin", "json-type": "int"}
                ]
                """)
        #expect(IntrospectionEmitter.lines(of: schema, unmasked: true).contains { $0.contains(#""name": "Thing""#) })
    }

    @Test(
        "wire names become Swift names",
        arguments: [
            ("null-co", "nullCo"), ("io_uring", "ioUring"), ("default", "`default`"), ("512", "_512"), ("QCOW2", "qcow2"),
            ("node-name", "nodeName"), ("self", "self_"), ("type", "type"),
            ("__com.example_x-y", "comExampleXY"),
        ])
    func memberNames(wire: String, swift: String) {
        #expect(SwiftNames.member(wire) == swift)
    }

    @Test("types, files and events have the names that the plugin and the code expect")
    func otherNames() {
        #expect(SwiftNames.type("BLOCK_EXPORT_DELETED") == "BlockExportDeleted")
        #expect(SwiftNames.type("blockdev-add") == "BlockdevAdd")
        #expect(SwiftNames.type("String") == "String_")
        #expect(SwiftNames.type("BlockdevOptionsQcow2") == "BlockdevOptionsQcow2")
        #expect(SwiftNames.file(ofModule: "dir/block-core.json") == "BlockCore+Generated.swift")
    }

    @Test("the generator knows every public type of the runtime, so that no definition can hide one")
    func runtimeTypes() throws {
        let sources = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(separator: "/") + "/Sources/QAPI/QAPIRuntime"
        var types: Set<String> = []
        for case let file as String in try #require(FileManager.default.enumerator(atPath: sources)) where file.hasSuffix(".swift") {
            let text = String(decoding: try SmallFile.read("\(sources)/\(file)"), as: UTF8.self)
            for match in text.matches(of: #/(?m)^public (?:final |indirect )?(?:struct|enum|protocol|class|typealias) (?<name>\w+)/#) {
                types.insert(String(match.output.name))
            }
        }
        #expect(SwiftNames.runtimeTypes == types)
        #expect(SwiftNames.type("CompatPolicy") == "CompatPolicy_")
    }

    @Test("branches of a union are described as they are written, then the values without one")
    func branchOrder() throws {
        let schema = try schema(
            "{ 'enum': 'Kk', 'data': [ 'a', 'b', 'c' ] } { 'struct': 'Aa', 'data': {} } { 'union': 'Uu', 'base': { 'k': 'Kk' }, 'discriminator': 'k',"
                + " 'data': { 'c': 'Aa', 'a': 'Aa' } } { 'event': 'GO', 'boxed': true, 'data': 'Uu' }")
        let line = IntrospectionEmitter.lines(of: schema, unmasked: true).first { $0.contains("variants") }
        #expect(line?.contains(#""variants": [{"case": "c", "type": "Aa"}, {"case": "a", "type": "Aa"}, {"case": "b", "type": "q_empty"}]"#) == true)
    }

    @Test("a struct that contains itself is boxed, and a union that does so is indirect")
    func recursion() throws {
        let schema = try schema(
            "{ 'struct': 'Chain', 'data': { '*next': 'Chain', 'others': ['Chain'] } } { 'enum': 'Kk', 'data': ['a'] } { 'struct': 'Aa', 'data': { 'ref': 'Ref' } }"
                + "{ 'union': 'Uu', 'base': { 'k': 'Kk' }, 'discriminator': 'k', 'data': { 'a': 'Aa' } } { 'alternate': 'Ref', 'data': { 'uu': 'Uu', 'n': 'str' } }"
        )
        let text = SwiftGenerator.files(for: schema, named: "Test")[0].text
        #expect(text.contains("@Boxed public var next: Chain?"))
        #expect(text.contains("\n    public var others: [Chain]"))
        #expect(text.contains("public indirect enum Branch"))
        #expect(text.contains("public indirect enum Ref"))
    }
}
