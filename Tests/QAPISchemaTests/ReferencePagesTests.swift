import QAPIGenerator
import QAPISchema
import StrataBase
import Testing

@Suite("Reference pages")
struct ReferencePagesTests {
    /// The package's folder.
    private let root = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(separator: "/")

    @Test("Docs/QMP says what the schema says; run qapi-gen --docs Docs/QMP after a change")
    func current() throws {
        let schema = try SchemaReader.schema(root: "\(root)/Sources/QAPI/StorageSchema/schema/schema.json") { try SmallFile.read($0) }
        for file in MarkdownEmitter.files(for: schema, titled: "The control interface") {
            let page = String(decoding: try SmallFile.read("\(root)/Docs/QMP/\(file.name)"), as: UTF8.self)
            #expect(page == file.text, "Docs/QMP/\(file.name) is out of date")
        }
    }
}
