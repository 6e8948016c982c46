import Foundation
import StrataTesting
import Testing

@Suite("names of the program")
struct ToolNameTests {
    private func link(_ name: String, in folder: TemporaryFolder) throws -> String {
        try FileManager.default.createSymbolicLink(atPath: folder.path(name), withDestinationPath: Strata.binary)
        return folder.path(name)
    }

    @Test("through a link the program is that tool and calls itself by that name", arguments: ["qemu-img", "strata-img"])
    func imgByName(name: String) throws {
        let folder = try TemporaryFolder()
        let tool = try link(name, in: folder)
        try mustRun(tool, ["create", "-f", "qcow2", "disk.qcow2", "1M"], in: folder.url)
        try QEMU.mustFindClean("disk.qcow2", in: folder)
        let refused = try run(tool, ["info", "missing.qcow2"], in: folder.url)
        expectClearError(refused, naming: ["missing.qcow2"])
        #expect(refused.errorText.hasPrefix("\(name): "), "\(refused)")
    }

    @Test("through a link the program is the daemon", arguments: ["qemu-storage-daemon", "strata-daemon"])
    func daemonByName(name: String) throws {
        let folder = try TemporaryFolder()
        let tool = try link(name, in: folder)
        let version = try mustRun(tool, ["--version"], in: folder.url)
        #expect(version.text.contains("version"), "\(version)")
        let refused = try run(tool, ["--frobnicate"], in: folder.url)
        // For an option that does not exist the whole path is shown, as the C library's getopt does.
        #expect(refused.errorText.hasPrefix("\(name): ") || refused.errorText.hasPrefix("\(tool): "), "\(refused)")
    }

    @Test("the help of img lists every driver that the control interface knows, as qemu-img's does")
    func drivers() throws {
        let schema = try mustRun(Strata.binary, ["daemon", "--chardev", "stdio,id=m", "--monitor", "m"], input: Data(#"{"execute": "qmp_capabilities"} {"execute": "query-qmp-schema"} {"execute": "quit"}"#.utf8))
        let drivers = try #require(schema.text.firstMatch(of: #/"values": \[(?<names>[^\]]*"snapshot-access"[^\]]*)\]/#)).output.names.matches(of: #/[a-z][a-z0-9_-]+/#).map { String($0.output) }
        let ours = try mustRun(Strata.binary, ["img", "--help"]).text.matches(of: #/\S+/#).map { String($0.output) }
        let theirs = try mustRun("qemu-img", ["--help"]).text.matches(of: #/\S+/#).map { String($0.output) }
        #expect(drivers.count > 20)
        for driver in drivers { #expect(ours.contains(driver) && theirs.contains(driver), "\(driver)") }
    }

    @Test("without a tool's name the program refuses; its help names the tools")
    func noTool() throws {
        expectClearError(try run(Strata.binary, []))
        expectClearError(try run(Strata.binary, ["frobnicate"]), naming: ["frobnicate"])
        let help = try mustRun(Strata.binary, ["--help"])
        for tool in ["img", "io", "nbd", "daemon", "qmp"] { #expect(help.text.contains("  \(tool) - "), "\(help)") }
    }
}
