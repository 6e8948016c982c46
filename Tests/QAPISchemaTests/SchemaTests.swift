import QAPIGenerator
import QAPISchema
import Testing

/// A schema in memory: `main.json` and whatever else is given.
private func schema(_ main: String, _ others: [String: String] = [:]) throws(SchemaError) -> Schema {
    struct Missing: Error, CustomStringConvertible { var description: String { "no such file" } }
    return try SchemaReader.schema(root: "main.json") { path in
        guard let text = path == "main.json" ? main : others[path] else { throw Missing() }
        return Array(text.utf8)
    }
}

@Suite("Schema language")
struct SchemaTests {
    @Test("files are included once, cycles are no harm, paths are relative")
    func includes() throws {
        let result = try schema(
            "{ 'include': 'sub/a.json' } { 'struct': 'Main', 'data': { 'a': 'Aa' } }",
            [
                "sub/a.json": "{ 'include': './b.json' } { 'struct': 'Aa', 'data': {} }",
                "sub/b.json": "{ 'include': '../main.json' } { 'include': 'a.json' }",
            ])
        #expect(result.modules.map(\.file) == ["main.json", "sub/a.json", "sub/b.json"])
        #expect(result.dump == "module main.json\nstruct Main\n    a: Aa\nmodule a.json\nstruct Aa\nmodule b.json\n")
    }

    @Test("an error in an included file tells how it was reached")
    func errorInInclude() {
        let error = #expect(throws: SchemaError.self) {
            try schema("\n{ 'include': 'a.json' }", ["a.json": "{ 'include': 'b.json' }", "b.json": "\n\n{ 'enum': 'Aa' }"])
        }
        #expect(error?.description == "b.json:3: in enum 'Aa': misses key 'data' (included from a.json:1, from main.json:2)")
    }

    @Test("what a condition excludes is gone")
    func defines() throws {
        let all = try schema(
            "{ 'enum': 'Kk', 'data': [ 'a', { 'name': 'b', 'if': 'B' } ] } { 'struct': 'Aa', 'data': { 'x': { 'type': 'int', 'if': { 'not': 'B' } } } } { 'event': 'GO', 'if': { 'all': [ 'B', 'C' ] } }"
        )
        #expect(try all.applying(defines: []).dump == "module main.json\nenum Kk\n    a\nstruct Aa\n    x: int if not(B)\n")
        #expect(
            try all.applying(defines: ["B", "C"]).dump == "module main.json\nenum Kk\n    a\n    b if B\nstruct Aa\nevent GO if all(B, C)\n")
    }

    @Test("a feature whose condition does not hold is gone, wherever it stands")
    func conditionalFeatures() throws {
        let conditional = "{ 'name': 'slow', 'if': 'SLOW' }"
        let all = try schema(
            "{ 'struct': 'Aa', 'data': { 'x': { 'type': 'int', 'features': [ \(conditional) ] } }, 'features': [ \(conditional) ] }"
                + "{ 'enum': 'Kk', 'data': [ { 'name': 'a', 'features': [ \(conditional), 'old' ] } ] }")
        #expect(try all.applying(defines: []).dump == "module main.json\nstruct Aa\n    x: int\nenum Kk\n    a +old\n")
        #expect(try all.applying(defines: ["SLOW"]).dump == all.dump)
    }

    @Test("what conditions leave must not refer to what they remove")
    func danglingReference() throws {
        let all = try schema("{ 'struct': 'Aa', 'data': { 'x': 'Bb' } }\n{ 'struct': 'Bb', 'data': {}, 'if': 'B' }")
        #expect(try all.applying(defines: ["B"]).dump == all.dump)
        let error = #expect(throws: SchemaError.self) { try all.applying(defines: []) }
        #expect(error?.description == "main.json:1: in struct 'Aa': member 'x' uses unknown type 'Bb', as far as conditions hold")
    }

    @Test("files that include others without end are refused")
    func endlessInclude() {
        let error = #expect(throws: SchemaError.self) {
            try SchemaReader.schema(root: "main.json") { _ in Array("{ 'include': 'sub/main.json' }".utf8) }
        }
        #expect(error?.message == "files include one another too deeply")
    }

    @Test("random edits of a schema never trap", arguments: [1, 2])
    func fuzz(seed: UInt64) throws {
        var state = seed
        func next(_ limit: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % limit
        }
        let alphabet = Array("{}[]:,'\\# \n@*abTrue".utf8) + [0, 9, 0xff]
        let texts = try TinySchemas.names(endingIn: ".json").map { Array(try TinySchemas.text("\($0).json").utf8) }
        for _ in 0..<3000 {
            var text = texts[next(texts.count)]
            for _ in 0..<1 + next(3) { text[next(text.count)] = alphabet[next(alphabet.count)] }
            do {
                let result = try SchemaReader.schema(root: "main.json") { _ in text }
                _ = SwiftGenerator.files(for: result, named: "Test")
            } catch {}
        }
    }
}
