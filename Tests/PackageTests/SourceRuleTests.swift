import Testing

@Suite("source rules")
struct SourceRuleTests {
    private static let ours = PackageLayout.files(in: "Sources", endings: ["swift"])
    private static let all = ours + PackageLayout.files(in: "Tests", endings: ["swift"]) + PackageLayout.files(in: "Benchmarks", endings: ["swift"])

    @Test("unsafe code lives in the Base room only")
    func unsafeStaysInBase() throws {
        let use = #/(?:^|[^A-Za-z0-9_.`])unsafe\s+[A-Za-z_(&\[]|@unsafe\b|\bUnsafe[A-Za-z]*(?:Pointer|Continuation)\b|nonisolated\(unsafe\)/#
        for file in Self.ours where !file.hasPrefix("Sources/Base/") {
            for (index, line) in try PackageLayout.lines(of: file).enumerated() where PackageLayout.code(of: line).contains(use) {
                // An actor with an executor of its own has no other way to name it.
                if line.contains("unownedExecutor: UnownedSerialExecutor {") { continue }
                Issue.record("\(file):\(index + 1) is unsafe outside Sources/Base: \(line)")
            }
        }
    }

    @Test("nothing traps on purpose outside preconditions: no try!, no as!")
    func noForcedTries() throws {
        let forced = #/\btry!|\bas!\s/#
        for file in Self.ours {
            for (index, line) in try PackageLayout.lines(of: file).enumerated() where PackageLayout.code(of: line).contains(forced) {
                Issue.record("\(file):\(index + 1) would trap: \(line)")
            }
        }
    }

    @Test("file names are unique in a module")
    func uniqueNames() throws {
        for target in try PackageLayout().targets {
            let names = PackageLayout.files(in: target.path, endings: ["swift"]).map { $0.split(separator: "/").last ?? "" }
            let repeated = Dictionary(grouping: names, by: \.self).filter { $0.value.count > 1 }.keys.sorted()
            #expect(repeated.isEmpty, "\(target.name) has several files of one name: \(repeated.joined(separator: ", "))")
        }
    }

    @Test("a file has fewer than 600 lines")
    func shortFiles() throws {
        for file in Self.all {
            let count = try PackageLayout.lines(of: file).count
            #expect(count < 600, "\(file) has \(count) lines: give it a second file")
        }
    }

    @Test("a finished module has no placeholder left in it")
    func noPlaceholders() {
        let folders = Dictionary(grouping: Self.ours) { $0.split(separator: "/").prefix(3).joined(separator: "/") }
        for (folder, files) in folders where files.count > 1 {
            #expect(!files.contains { $0.hasSuffix("/Placeholder.swift") }, "\(folder) has real files and still its placeholder")
        }
    }
}
