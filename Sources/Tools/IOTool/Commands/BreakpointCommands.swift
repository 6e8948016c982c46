import IOCore
import StrataBase

// Requests that stop at a chosen point and go on when told: with a blkdebug node below the image.

extension IOCommand {
    static let breakpoint = IOCommand(
        name: "break", arguments: "event tag", summary: "stop the next request that reaches the event, under that tag", count: 2...2
    ) { _, _ throws(CommandFailure) in
        throw .said("Could not set breakpoint: \(unsupported)")
    }

    static let removeBreakpoint = IOCommand(name: "remove_break", arguments: "tag", summary: "remove a breakpoint", count: 1...1) { arguments, _ throws(CommandFailure) in
        throw .said("Could not remove breakpoint \(arguments[0]): \(unsupported)")
    }

    static let resume = IOCommand(name: "resume", arguments: "tag", summary: "let a stopped request go on", count: 1...1) { _, _ throws(CommandFailure) in
        throw .said("Could not resume request: \(unsupported)")
    }

    static let waitForBreakpoint = IOCommand(name: "wait_break", arguments: "tag", summary: "wait until a request stops there", count: 1...1) { _, _ throws(CommandFailure) in
        throw .said("Could not wait for a request: \(unsupported)")
    }

    private static let unsupported = BlockError.text(ofErrno: BlockError(.unsupported, "").errno)
}
