import Foundation
import Testing

/// The folder of this package.
private let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
private let source = root.appendingPathComponent("Tests/StrataLibraryTests/Example/Sources/Example/Example.swift")

@Suite("example in the README")
struct ExampleTextTests {
    @Test("the README shows the example that is tested", .enabled(if: FileManager.default.fileExists(atPath: root.path + "/README.md")))
    func shown() throws {
        let readme = try String(contentsOf: root.appendingPathComponent("README.md"), encoding: .utf8)
        let example = try String(contentsOf: source, encoding: .utf8)
        #expect(readme.contains("```swift\n" + example + "```"))
        #expect(example.split(separator: "\n").count <= 15)
    }
}

/// The example of the README, as an embedder would build it: a package of its own that depends on this one.
///
/// It builds everything once more, which takes a minute or two of the suite's time.
@Suite("example package")
struct ExamplePackageTests {
    @Test("the example builds against the product 'Strata' alone and does what it says")
    func example() throws {
        let scratch = try Scratch()
        let folder = scratch.file("Sources/Example")
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try FileManager.default.copyItem(atPath: source.path, toPath: folder + "/Example.swift")
        // A dependency by path is known by its folder's name, which we do not choose.
        try FileManager.default.createSymbolicLink(atPath: scratch.file("strata"), withDestinationPath: root.path)
        let manifest = """
            // swift-tools-version: 6.2
            import PackageDescription
            let package = Package(
                name: "Example", dependencies: [.package(path: "strata")],
                targets: [.executableTarget(name: "Example", dependencies: [.product(name: "Strata", package: "strata")])])
            """
        try manifest.write(toFile: scratch.file("Package.swift"), atomically: true, encoding: .utf8)
        // Nobody debugs it or edits it.
        try run(
            "swift", ["build", "--package-path", scratch.path, "--disable-index-store", "-debug-info-format", "none"], atMost: .seconds(1800))
        try run("/usr/bin/qemu-img", ["create", "-q", "-f", "qcow2", scratch.file("disk.qcow2"), "1M"])
        let output = try run("/bin/sh", ["-c", "cd '\(scratch.path)' && .build/debug/Example"])
        #expect(output == "hello from a disk of 1048576 bytes\n")
        try run("/usr/bin/qemu-img", ["check", "-q", scratch.file("disk.qcow2")])
    }
}
