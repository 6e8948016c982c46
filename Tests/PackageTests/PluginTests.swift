import Foundation
import StrataTesting
import Testing

/// What the build plugin has made is what the compilers make of the sources as they are now: had a change of a schema, of a list of trace points or of
/// a compiler gone unnoticed, the old Swift would still be there.
@Suite("build plugin")
struct PluginTests {
    private static let build = PackageLayout.root.appending(path: ".build")

    /// Where the plugin puts what it makes for a target.
    private static func outputs(of target: String) throws -> URL {
        let packages = build.appending(path: "plugins/outputs")
        let folders = try FileManager.default.contentsOfDirectory(atPath: packages.path).map {
            packages.appending(path: $0).appending(path: "\(target)/destination/QAPIPlugin")
        }
        return try #require(folders.first { FileManager.default.fileExists(atPath: $0.path) })
    }

    private static func run(_ program: String, _ arguments: [String]) throws {
        // The compilers of a debug and of a release build make the same.
        let places = ["debug", "release"].map { build.appending(path: "\($0)/\(program)") }
        let executable = try #require(places.first { FileManager.default.isExecutableFile(atPath: $0.path) })
        try mustRun(executable.path, arguments)
    }

    private static func withFolder(_ body: (URL) throws -> Void) throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "strata-plugin-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try body(folder)
    }

    @Test("the Swift of a schema is that of the schema and the compiler as they are now", arguments: [
        ("StorageSchema", "Sources/QAPI/StorageSchema/schema"), ("SampleSchema", "Tests/Support/SampleSchema"),
    ])
    func schemas(target: String, folder: String) throws {
        let schemas = PackageLayout.root.appending(path: folder)
        let made = try Self.outputs(of: target)
        try Self.withFolder { fresh in
            try Self.run("qapi-gen", ["--name", target, "--output-dir", fresh.path, schemas.appending(path: "schema.json").path])
            let names = try FileManager.default.contentsOfDirectory(atPath: fresh.path)
            // One for each file, and the table.
            let sources = try FileManager.default.contentsOfDirectory(atPath: schemas.path).filter { $0.hasSuffix(".json") }
            #expect(names.count == sources.count + 1)
            for name in names {
                #expect(try Data(contentsOf: fresh.appending(path: name)) == Data(contentsOf: made.appending(path: name)), "\(target): \(name) is an old one")
            }
            // A file that would come out the same keeps its date, so that nothing is compiled again for nothing.
            let first = fresh.appending(path: try #require(names.first))
            try FileManager.default.setAttributes([.modificationDate: Date(timeIntervalSince1970: 1000)], ofItemAtPath: first.path)
            try Self.run("qapi-gen", ["--name", target, "--output-dir", fresh.path, schemas.appending(path: "schema.json").path])
            #expect(try FileManager.default.attributesOfItem(atPath: first.path)[.modificationDate] as? Date == Date(timeIntervalSince1970: 1000))
        }
    }

    @Test("the Swift of every list of trace points is that of the list as it is now")
    func tracePoints() throws {
        let sources = PackageLayout.root.appending(path: "Sources")
        let lists = (FileManager.default.enumerator(atPath: sources.path)?.compactMap { $0 as? String } ?? []).filter { $0.hasSuffix("/trace-events") }
        #expect(lists.count >= 8)
        for list in lists {
            let target = try #require(list.split(separator: "/").dropLast().last.map(String.init))
            let made = try Self.outputs(of: target).appending(path: "TraceEvents+Generated.swift")
            try Self.withFolder { folder in
                let fresh = folder.appending(path: "Events.swift")
                try Self.run("trace-gen", [target, sources.appending(path: list).path, fresh.path])
                #expect(try Data(contentsOf: fresh) == Data(contentsOf: made), "\(list) has changed and its Swift has not")
            }
        }
    }
}
