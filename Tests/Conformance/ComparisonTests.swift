import Foundation
import StrataTesting
import Testing

@Suite("the comparison with other programs")
struct ComparisonTests {
    @Test("Benchmarks/compare runs and writes its results")
    func smoke() throws {
        let folder = try TemporaryFolder()
        let script = Strata.root.appending(path: "Benchmarks/compare").path
        let finished = try run(
            script,
            [
                "--quick", "--rounds", "1", "--strata", Strata.binary, "--tmpfs", folder.url.path, "--disk", folder.url.path,
                "--rows", "null-co 4k d64|start-up|nbd raw randread 4k d1$", "--output", folder.path("results"),
            ])
        #expect(finished.succeeded, "\(finished)")
        for word in ["null-co", "randread", "start-up"] { #expect(finished.text.contains(word), "\(finished)") }
        #expect(!finished.text.contains("Not run"), "\(finished)")
        let results = try FileManager.default.contentsOfDirectory(atPath: folder.path("results"))
        #expect(Set(results.map { ($0 as NSString).pathExtension }) == ["json", "md"])
    }
}
