import Foundation
import StrataTesting
import Testing

/// `strata qmp -p` follows the jobs of a server.
@Suite("progress of a server's jobs")
struct JobProgressTests {
    @Test("jobs are followed until they are over or wait for their user")
    func follow() throws {
        let folder = try TemporaryFolder()
        try ChainImages.make(in: folder)
        let stage = try JobStage(nil, in: folder)
        try stage.openChain()
        // Eight mebibytes at this speed take several looks.
        try stage.must("blockdev-backup", ["job-id": "b", "device": "mid", "target": "target", "sync": "full", "speed": 8_388_608, "auto-dismiss": false])
        let objects = try qmp(stage, ["--progress=json"])
        let looks = try objects.split(separator: "\n").map { try JSON(parsing: Data($0.utf8)) }
        #expect(looks.count > 2)
        for look in looks {
            #expect(look["id"] == "b" && look["type"] == "backup")
            #expect(try #require(look["done"]?.integer) <= (try #require(look["total"]?.integer)))
        }
        #expect(looks.last?["status"] == "concluded" && looks.last?["left"] == nil)
        #expect(looks.dropLast().contains { ($0["rate"]?.integer ?? 0) > 0 && $0["left"]?.integer != nil })
        try stage.must("job-dismiss", ["id": "b"])
        // A mirror goes on for ever: when it is ready it waits for its user.
        let lines = try qmp(stage, ["-p", "blockdev-mirror", "job-id=m", "device=top", "target=target", "sync=top"])
        #expect(lines.contains("m mirror [####################] 100.0%  ready\n"), "\(lines)")
        try stage.daemon.quit()
    }

    @Test("at a terminal a bar grows in its place until the job is over")
    func terminal() throws {
        let folder = try TemporaryFolder()
        try ChainImages.make(in: folder)
        let stage = try JobStage(nil, in: folder)
        try stage.openChain()
        try stage.must("blockdev-backup", ["job-id": "b", "device": "mid", "target": "target", "sync": "full", "speed": 8_388_608, "auto-dismiss": false])
        let driver = Strata.root.appending(path: "Tests/Conformance/shell-terminal.py").path
        // What is seen in turn: a bar that is not full, the same line again, and the end.
        let steps = try JSON.array([.array(["b backup [", ""]), .array(["\u{1b}[1A", ""]), .array(["100.0%", ""])]).encoded()
        let session = try run(
            "python3", [driver, folder.path("state"), String(decoding: steps, as: UTF8.self), Strata.binary, "qmp", stage.daemon.monitorPath, "-p"], in: folder.url)
        #expect(session.succeeded, "\(session)")
        try stage.daemon.quit()
    }

    @Test("a job that has failed makes the status 1, and its error is told")
    func failure() throws {
        let folder = try TemporaryFolder()
        try ChainImages.make(in: folder)
        try mustRun("qemu-img", ["create", "-q", "-f", "raw", "small.raw", "1M"], in: folder.url)
        let stage = try JobStage(nil, in: folder)
        try stage.openChain()
        try stage.must("blockdev-add", ["driver": "raw", "node-name": "small", "file": ["driver": "file", "filename": "small.raw"]])
        try stage.must("blockdev-mirror", ["job-id": "m", "device": "top", "target": "small", "sync": "full", "auto-dismiss": false])
        let result = try run(Strata.binary, ["qmp", stage.daemon.monitorPath, "-p"], in: folder.url)
        #expect(result.ending == .exited(1))
        #expect(result.errorText.contains("job 'm': Source and target image have different sizes"))
        try stage.daemon.quit()
    }

    private func qmp(_ stage: JobStage, _ words: [String]) throws -> String {
        try mustRun(Strata.binary, ["qmp", stage.daemon.monitorPath] + words, in: stage.folder.url).text
    }
}
