import Testing

@Suite("floors")
struct FloorTests {
    @Test("Package.swift can be read: every source folder belongs to a target")
    func everyFolderIsATarget() throws {
        let layout = try PackageLayout()
        for file in PackageLayout.files(in: "Sources", endings: ["swift", "c", "h"]) {
            #expect(layout.targets.contains { file.hasPrefix($0.path + "/") }, "no target of Package.swift owns \(file)")
        }
    }

    @Test("a target depends only on targets of lower floors")
    func dependenciesPointDown() throws {
        let layout = try PackageLayout()
        let floors = Dictionary(uniqueKeysWithValues: layout.targets.map { ($0.name, $0.floor) })
        for target in layout.targets {
            for dependency in target.dependencies {
                let floor = try #require(floors[dependency], "\(target.name) depends on \(dependency), which Package.swift does not declare")
                #expect(floor < target.floor, "\(target.name) on floor \(target.floor) depends on \(dependency) on floor \(floor)")
            }
        }
    }

    @Test("a file imports only what its target declares, and of the system only what Linux without Foundation gives")
    func importsAreDeclared() throws {
        let layout = try PackageLayout()
        let system: Set = ["Swift", "Glibc", "Synchronization", "_Concurrency", "Builtin"]
        for target in layout.targets {
            // A build plugin runs inside SwiftPM: it is not part of any product.
            let allowed = target.path.hasSuffix("Plugin") ? ["PackagePlugin", "Foundation"] : system.union(target.dependencies)
            for file in PackageLayout.files(in: target.path, endings: ["swift"]) {
                for module in try PackageLayout.imports(of: file).subtracting(allowed).sorted() {
                    Issue.record("\(file) imports \(module), which Package.swift does not list for \(target.name)")
                }
            }
        }
    }
}
