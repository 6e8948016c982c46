import Foundation
import StrataTesting
import Testing

@Suite("sample images")
struct SampleImageTests {
    /// Features that Strata does not open yet: until then it must say so in one sentence. Take a name out when its feature arrives.
    static let notYet: Set = ["data-file.qcow2", "data-file-raw.qcow2", "extended-l2.qcow2"]

    private func folder() throws -> TemporaryFolder { try SampleImages.folder.get() }

    private func format(_ expected: JSON) -> String { expected["format"]?.string ?? "raw" }

    @Test("info says what QEMU says, or refuses what QEMU refuses", arguments: SampleImages.names)
    func info(name: String) throws {
        let expected = try SampleImages.expectation(for: name)
        let ours = try Strata.img("info", "-f", format(expected), "--output=json", name, in: try folder())
        if Self.notYet.contains(name), !ours.succeeded {
            expectClearError(ours, naming: [name])
        } else if expected["info"]?["exit"] == 0 {
            #expect(ours.succeeded, "\(ours)")
            guard ours.succeeded else { return }
            var said = SampleImages.portable(try JSON(parsing: ours.output)).object
            var wanted = expected["info"]?["json"]?.object
            if name.hasPrefix("bad-") {
                // QEMU lists a snapshot that is not there, with zeros for its fields.
                said?["snapshots"] = nil
                wanted?["snapshots"] = nil
            }
            #expect(said == wanted)
        } else {
            expectClearError(ours, naming: [name])
        }
    }

    @Test("check finds what QEMU finds", arguments: SampleImages.names)
    func check(name: String) throws {
        let expected = try SampleImages.expectation(for: name)
        let ours = try Strata.img("check", "-f", format(expected), "--output=json", name, in: try folder())
        // Checking an image does not read its backing file, so one that is missing, or is the image itself, is no fault. QEMU opens it all
        // the same, and fails.
        if name == "over-missing.qcow2" || name == "bad-backing-loop.qcow2" {
            #expect(ours.succeeded, "\(ours)")
            return
        }
        let exit = try #require(expected["check"]?["exit"]?.integer)
        // 63 is the status for "this cannot be checked".
        if Self.notYet.contains(name), ours.ending == .exited(63) { return expectClearError(ours, status: 63) }
        // An image too damaged to be checked ("1") and one with corruptions found ("2") are both refusals; QEMU draws the line
        // where its code happens to, so a test must not.
        let acceptable: [Finished.Ending] = exit == 1 || exit == 2 ? [.exited(1), .exited(2)] : [.exited(Int32(exit))]
        #expect(acceptable.contains(ours.ending), "QEMU's exit status is \(exit): \(ours)")
        guard exit == 0 || exit == 3, acceptable.contains(ours.ending) else { return }
        let said = try JSON(parsing: ours.output)
        for key in ["leaks", "corruptions", "check-errors", "total-clusters", "allocated-clusters", "compressed-clusters", "image-end-offset", "format"] {
            #expect(said[key] == expected["check"]?["json"]?[key], "\(key) of \(name)")
        }
    }

    @Test("the guest reads what it reads under QEMU, or gets one clear error", arguments: SampleImages.names)
    func contents(name: String) throws {
        let expected = try SampleImages.expectation(for: name)
        let target = try TemporaryFolder()
        if expected["sha256"]?.string == nil, expected["info"]?["exit"] == 0, !name.hasPrefix("bad-"), !name.contains("missing") {
            return  // sound but large
        }
        let ours = try run(
            Strata.binary, ["img", "convert", "-f", format(expected), "-O", "raw", name, target.path("out.raw")], in: try folder().url,
            atMost: .seconds(60))
        if Self.notYet.contains(name), !ours.succeeded { return expectClearError(ours) }
        // QEMU guesses the format of a backing file that has none recorded; a guess that a guest can steer is a hole, so Strata asks.
        if name == "backing-without-format.qcow2" { return expectClearError(ours, naming: ["format"]) }
        guard let digest = expected["sha256"]?.string else { return expectClearError(ours) }
        // QEMU reads some damaged images as if the damage were data; a clear refusal is as good.
        if name.hasPrefix("bad-"), !ours.succeeded { return expectClearError(ours) }
        #expect(ours.succeeded, "\(ours)")
        guard ours.succeeded else { return }
        #expect(try mustRun("sha256sum", ["out.raw"], in: target.url).text.hasPrefix(digest), "\(name) reads differently")
    }

    @Test("reading the ends of a 64 TiB image takes no time and no memory")
    func largeImage() throws {
        let folder = try TemporaryFolder()
        let source = try self.folder().path("large-64T.qcow2")
        let daemon = try Daemon(in: folder)
        try daemon.serve(source, writable: false)
        let client = try PlainNBDClient(path: daemon.nbdPath, export: "disk")
        #expect(client.size == 64 << 40)
        #expect(try client.read(1024, at: (64 << 40) - 1024) == [UInt8](repeating: 0x64, count: 1024))
        #expect(try client.read(1024, at: 32 << 40) == [UInt8](repeating: 0x65, count: 512) + [UInt8](repeating: 0, count: 512))
        #expect(try client.read(512, at: 0) == [UInt8](repeating: 0, count: 512))
        let status = try String(contentsOfFile: "/proc/\(daemon.process.identifier)/status", encoding: .utf8)
        let peak = status.firstMatch(of: #/VmHWM:\s+(\d+) kB/#).flatMap { Int($0.output.1) } ?? 0
        #expect(peak < 200_000, "the daemon used \(peak) KiB")
        try client.disconnect()
        try daemon.quit()
    }
}
