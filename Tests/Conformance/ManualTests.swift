import Foundation
import StrataTesting
import Testing

@Suite("manual pages, completions, installation")
struct ManualTests {
    private static let tools = ["img", "io", "nbd", "daemon", "qmp"]

    @Test("every tool's page is one that man can show, and speaks of every option of its help", arguments: tools)
    func pages(_ tool: String) throws {
        let page = try mustRun(Strata.binary, ["manual", tool])
        let shown = try mustRun("groff", ["-man", "-Tascii", "-P-cbou", "-ww", "-rLL=200n"], input: page.output)
        #expect(shown.errorText.isEmpty, "groff has nothing to complain about: \(shown.errorText)")
        #expect(shown.text.contains("strata-\(tool) - "))
        let help = try mustRun(Strata.binary, [tool, "--help"]).text
        let options = help.matches(of: #/--[a-z][a-z-]+/#).map { String($0.output) }
        #expect(options.count > 2)
        for option in options { #expect(shown.text.contains(option), "\(option)") }
    }

    @Test("a shell understands its script", arguments: [("bash", ["-n"]), ("zsh", ["-n"]), ("fish", ["-n"])])
    func scripts(_ shell: String, _ check: [String]) throws {
        let folder = try TemporaryFolder()
        try folder.write(try mustRun(Strata.binary, ["completion", shell]).output, to: "script")
        let checked = try mustRun(shell, check + ["script"], in: folder.url)
        #expect(checked.errorText.isEmpty)
        expectClearError(try run(Strata.binary, ["completion", "csh"]), naming: ["bash"])
    }

    @Test(
        "bash completes tools, commands and options",
        arguments: [
            ("strata i", ["img", "io"]), ("strata img conv", ["convert"]), ("strata img info --back", ["--backing-chain"]),
            ("strata nbd --export", ["--export-name"]), ("strata-img re", ["rebase", "resize"]), ("strata img -q info --outp", ["--output"]),
        ])
    func completing(_ line: String, _ expected: [String]) throws {
        let words = line.split(separator: " ").map { "'\($0)'" }.joined(separator: " ")
        let script = """
            source <('\(Strata.binary)' completion bash)
            COMP_WORDS=(\(words)); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _strata; printf '%s\\n' "${COMPREPLY[@]}"
            """
        let answer = try mustRun("bash", ["-c", script])
        #expect(answer.text.split(separator: "\n").map(String.init).sorted() == expected, "\(answer)")
    }

    @Test("fish completes commands")
    func fish() throws {
        let answer = try mustRun("fish", ["--no-config", "-c", "'\(Strata.binary)' completion fish | source; complete -C 'strata img conv'"])
        #expect(answer.text.hasPrefix("convert"), "\(answer)")
    }

    @Test("zsh loads its script where it is installed, and takes it for the tools' names", arguments: ["strata", "strata-img"])
    func zsh(_ name: String) throws {
        let folder = try TemporaryFolder()
        try FileManager.default.createDirectory(atPath: folder.path("functions"), withIntermediateDirectories: true)
        try folder.write(try mustRun(Strata.binary, ["completion", "zsh"]).output, to: "functions/_strata")
        let script = "fpath=('\(folder.path("functions"))' $fpath); autoload -Uz compinit; compinit -u -d '\(folder.path("dump"))'; print -r -- $_comps[\(name)]; autoload -Uz +X _strata"
        let answer = try mustRun("zsh", ["-f", "-c", script])
        #expect(answer.text == "_strata\n" && answer.errorText.isEmpty, "\(answer)")
    }

    @Test("what is installed works, and is removed again without a trace")
    func installation() throws {
        let folder = try TemporaryFolder()
        let script = Strata.root.appending(path: "Scripts/install").path
        let environment = ["STRATA_BINARY": Strata.binary]
        try mustRun(script, ["--prefix", folder.path("usr"), "--replace-qemu"], environment: environment)
        #expect(try mustRun(folder.path("usr/bin/qemu-img"), ["--version"]).text.hasPrefix("qemu-img version"))
        try mustRun("sh", ["-c", "zcat '\(folder.path("usr/share/man/man1/strata-img.1.gz"))' | groff -man -Tascii > page"], in: folder.url)
        #expect(String(decoding: try folder.read("page"), as: UTF8.self).contains("convert"))
        try mustRun(script, ["--prefix", folder.path("usr"), "--uninstall"], environment: environment)
        let left = try mustRun("find", [folder.path("usr"), "-type", "f", "-o", "-type", "l"])
        #expect(left.text.isEmpty, "\(left.text)")
    }

    @Test("a program of QEMU's own is not replaced unasked")
    func foreignPrograms() throws {
        let folder = try TemporaryFolder()
        try FileManager.default.createDirectory(atPath: folder.path("usr/bin"), withIntermediateDirectories: true)
        try folder.write(Array("theirs".utf8), to: "usr/bin/qemu-img")
        let script = Strata.root.appending(path: "Scripts/install").path
        expectClearError(try run(script, ["--prefix", folder.path("usr"), "--replace-qemu"], environment: ["STRATA_BINARY": Strata.binary]), naming: ["qemu-img"])
        #expect(try folder.read("usr/bin/qemu-img") == Array("theirs".utf8))
        #expect(!folder.contains("usr/bin/strata"))
    }

    /// The extended run has the release binary, which needs no Swift.
    @Test("the Debian package works on a machine that has nothing else", arguments: extendedRun ? ["Scripts/try-package"] : [])
    func cleanMachine(script: String) throws {
        let folder = try TemporaryFolder()
        let built = try mustRun(
            Strata.root.appending(path: "Scripts/package").path, ["--output", folder.path("out")], environment: ["STRATA_BINARY": Strata.binary])
        let package = built.text.trimmingCharacters(in: .whitespacesAndNewlines)
        let tried = try mustRun(Strata.root.appending(path: script).path, [package], atMost: .seconds(600))
        #expect(tried.text.hasSuffix("the package works\n"), "\(tried)")
    }

    @Test("the Debian package holds everything that is installed, and can be unpacked")
    func package() throws {
        let folder = try TemporaryFolder()
        let built = try mustRun(
            Strata.root.appending(path: "Scripts/package").path, ["--output", folder.path("out")], environment: ["STRATA_BINARY": Strata.binary])
        let package = built.text.trimmingCharacters(in: .whitespacesAndNewlines)
        let control = try mustRun("dpkg-deb", ["-f", package]).text
        #expect(control.contains("Package: strata\n") && control.contains("libc6"), "\(control)")
        try mustRun("dpkg-deb", ["-x", package, folder.path("root")])
        #expect(try mustRun(folder.path("root/usr/bin/strata-img"), ["--version"]).text.contains("Strata"))
        for path in ["share/man/man1/strata-nbd.1.gz", "share/bash-completion/completions/strata", "share/doc/strata/copyright"] {
            #expect(folder.contains("root/usr/\(path)"), "\(path)")
        }
    }
}
