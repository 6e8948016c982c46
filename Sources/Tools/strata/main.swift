import DaemonTool
import Glibc
import ImgTool
import IOCore
import IOTool
import NBDTool
import QMPTool
import StrataBase
import ToolSupport

// The one executable: the name it is called by, or else the first argument, says which tool it is.

/// Made when it is asked for, like `manuals`: the globals of this file are computed before anything else happens.
nonisolated var helpText: String {
    """
        Strata's tools for disk images. Usage:

          strata TOOL [options]

        Tools (run strata TOOL --help for each):
        \(ToolName.allCases.map { "  \($0.rawValue) - \($0.summary)\n" }.joined())
        For shells and for man:
          strata completion bash|zsh|fish    prints a script that completes command lines
          strata manual TOOL                 prints the tool's manual page (to read it: strata manual img | man -l -)

        Options:
          -h, --help
             display this help and exit
          -V, --version
             display version info and exit

        A link to this program named strata-img, qemu-img, strata-io, qemu-io, strata-nbd, qemu-nbd, strata-daemon, qemu-storage-daemon or strata-qmp acts as that tool.

        """
}

func run(_ commandLine: [String]) -> Int32 {
    switch ToolName.choose(commandLine) {
    case .tool(.img, let invocation): return runImgTool(invocation)
    case .tool(.io, let invocation): return runIOTool(invocation)
    case .tool(.nbd, let invocation): return runNBDTool(invocation)
    case .tool(.daemon, let invocation): return runDaemonTool(invocation)
    case .tool(.qmp, let invocation): return runQMPTool(invocation)
    case .none(let program, let arguments):
        switch arguments.first {
        case "-h", "--help":
            return StandardStreams.print(helpText) ? 0 : 1
        case "-V", "--version":
            return StandardStreams.print(VersionText.text(name: "strata")) ? 0 : 1
        case "completion": return printCompletion(Array(arguments.dropFirst()))
        case "manual": return printManual(Array(arguments.dropFirst()))
        case let word?:
            let what = word.hasPrefix("-") ? "unrecognized option '\(word)'" : "Tool not found: \(word); there are: \(ToolName.list)"
            StandardStreams.printError("strata: \(what)\nTry '\(program) --help' for more info\n")
            return 1
        case nil:
            StandardStreams.printError("strata: Not enough arguments\nTry '\(program) --help' for more info\n")
            return 1
        }
    }
}

nonisolated var manuals: [ToolManual] { [imgManual, ioManual, nbdManual, daemonManual, qmpManual] }

func printCompletion(_ arguments: [String]) -> Int32 {
    guard arguments.count == 1, let shell = ShellCompletion(rawValue: arguments[0]) else {
        StandardStreams.printError("strata completion: name one of \(ShellCompletion.allCases.map(\.rawValue).joined(separator: ", "))\n")
        return 1
    }
    return StandardStreams.print(shell.script(manuals)) ? 0 : 1
}

func printManual(_ arguments: [String]) -> Int32 {
    guard arguments.count == 1, let manual = manuals.first(where: { $0.tool.rawValue == arguments[0] }) else {
        StandardStreams.printError("strata manual: name one of \(ToolName.list)\n")
        return 1
    }
    return StandardStreams.print(ManualPage.text(manual, among: manuals)) ? 0 : 1
}

StandardStreams.occupyClosed()
ProcessSignals.ignoreFileSizeLimit()
do throws(BlockError) { exit(run(try ProgramArguments.read())) } catch {
    StandardStreams.printError("strata: \(error.message)\n")
    exit(1)
}
