import Foundation
import Testing

@Suite("documents")
struct DocumentPathTests {
    private static let documents =
        ["README.md", "CONTRIBUTING.md", "images/README.md", "Benchmarks/README.md"].filter(exists) + PackageLayout.files(in: "Docs", endings: ["md"])

    private static func exists(_ path: String) -> Bool {
        FileManager.default.fileExists(atPath: PackageLayout.root.appending(path: path).path)
    }

    @Test("a path that a document names exists", arguments: documents)
    func pathsExist(document: String) throws {
        let text = try String(contentsOf: PackageLayout.root.appending(path: document), encoding: .utf8)
        // A path from the root: Sources/..., Docs/... A placeholder such as `Tests/<Module>Tests` is checked as far as it is literal.
        let fromRoot = #/(?:^|[\s`(\["'])(?<path>(?:Sources|Tests|Docs|Scripts|Benchmarks|images|\.ci)\/[A-Za-z0-9_+.\/-]*)(?<next>.?)/#
        for match in text.matches(of: fromRoot) {
            var path = String(match.output.path)
            // "Docs/Tour.md." at the end of a sentence; "images/bad-*" and "Tests/X<Y>" go on with something that is not a name.
            while path.hasSuffix(".") { path.removeLast() }
            if ["<", "*", "{"].contains(match.output.next) { path = path.split(separator: "/").dropLast(path.hasSuffix("/") ? 0 : 1).joined(separator: "/") }
            #expect(Self.exists(path), "\(document) names \(path), which does not exist")
        }
        // A path from Sources, as Docs/FollowAWrite.md writes it: `NBD/NBDServer/Connection/RequestReceiver`.
        let rooms = try Set(FileManager.default.contentsOfDirectory(atPath: PackageLayout.root.appending(path: "Sources").path))
        for match in text.matches(of: #/`(?<path>[A-Za-z]+\/[A-Za-z0-9_+.\/-]+)`/#) {
            let path = "Sources/\(match.output.path)"
            guard let room = match.output.path.split(separator: "/").first, rooms.contains(String(room)) else { continue }
            #expect(Self.exists(path) || Self.exists(path + ".swift"), "\(document) names \(path), which does not exist")
        }
        // A link: [the tour](Docs/Tour.md).
        let folder = document.split(separator: "/").dropLast().joined(separator: "/")
        for match in text.matches(of: #/\]\((?<path>[A-Za-z0-9_+.\/-]+)(?:#[^)]*)?\)/#) {
            let path = folder.isEmpty ? String(match.output.path) : folder + "/" + match.output.path
            #expect(Self.exists(path), "\(document) links to \(path), which does not exist")
        }
    }

    @Test("a test that a document names as `Suite.function` exists", arguments: documents)
    func testsExist(document: String) throws {
        let text = try String(contentsOf: PackageLayout.root.appending(path: document), encoding: .utf8)
        let named = text.matches(of: #/`(?<suite>[A-Z][A-Za-z0-9]*Tests)\.(?<function>[a-z][A-Za-z0-9]*)`/#)
        guard !named.isEmpty else { return }
        let sources = try PackageLayout.files(in: "Tests", endings: ["swift"]).map { try String(contentsOf: PackageLayout.root.appending(path: $0), encoding: .utf8) }
        for match in named {
            let (suite, function) = (match.output.suite, match.output.function)
            #expect(
                sources.contains { $0.contains("struct \(suite) {") && $0.contains("func \(function)(") }, "\(document) names \(suite).\(function), which does not exist")
        }
    }
}
