import Foundation
import QAPISchema
import StrataBase
import Testing

/// The tiny schemas of the folder `Schemas`: NAME.json states one rule in its first line and keeps or breaks it; NAME.expected is the model
/// or the error. Files in `Schemas/parts` are for inclusion.
enum TinySchemas {
    static let folder = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/") + "/Schemas"

    static func names(endingIn suffix: String) -> [String] {
        let files = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return files.filter { $0.hasSuffix(suffix) }.map { String($0.dropLast(suffix.count)) }.sorted()
    }

    static func text(_ file: String) throws -> String { String(decoding: try SmallFile.read("\(folder)/\(file)"), as: UTF8.self) }

    /// What the compiler says about a schema: the model, or one line about the first thing that is wrong.
    static func outcome(_ name: String) -> String {
        struct Missing: Error, CustomStringConvertible { var description: String { "no such file" } }
        do throws(SchemaError) {
            return try SchemaReader.schema(root: "\(name).json") { path in
                guard let bytes = try? SmallFile.read("\(folder)/\(path)") else { throw Missing() }
                return bytes
            }.dump
        } catch {
            return error.description + "\n"
        }
    }
}

@Suite("Rules of the schema language")
struct SchemaRulesTests {
    @Test("a tiny schema has the expected model or error", arguments: TinySchemas.names(endingIn: ".json"))
    func tiny(name: String) throws {
        #expect(TinySchemas.outcome(name) == (try TinySchemas.text("\(name).expected")))
    }

    @Test("every tiny schema has an expectation, and every expectation a schema")
    func complete() {
        #expect(TinySchemas.names(endingIn: ".json") == TinySchemas.names(endingIn: ".expected"))
        #expect(TinySchemas.names(endingIn: ".json").count > 200)
    }

    @Test("every tiny schema says in its first line which rule it is about")
    func described() throws {
        for name in TinySchemas.names(endingIn: ".json") { #expect(try TinySchemas.text("\(name).json").hasPrefix("# "), "\(name)") }
    }
}
