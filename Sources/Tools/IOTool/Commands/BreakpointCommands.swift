import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import ToolSupport

// Requests that stop at a chosen point and go on when told: with a blkdebug node below the image.

extension IOCommand {
    static let breakpoint = IOCommand(
        name: "break", arguments: "event tag", summary: "stop the next request that reaches the event, under that tag", count: 2...2
    ) { arguments, session throws(CommandFailure) in
        guard let driver = try suspending(session) else { throw .said("Could not set breakpoint: \(unsupported)") }
        guard let point = BlkdebugEvent(rawValue: arguments[0]) else { throw .said("Could not set breakpoint: \(unknown)") }
        driver.setBreakpoint(at: point, tag: arguments[1])
    }

    static let removeBreakpoint = IOCommand(
        name: "remove_break", arguments: "tag", summary: "remove a breakpoint", count: 1...1
    ) { arguments, session throws(CommandFailure) in
        guard let driver = try suspending(session) else { throw .said("Could not remove breakpoint \(arguments[0]): \(unsupported)") }
        if !driver.removeBreakpoint(tag: arguments[0]) { throw .said("Could not remove breakpoint \(arguments[0]): \(unknown)") }
    }

    static let resume = IOCommand(
        name: "resume", arguments: "tag", summary: "let a stopped request go on", count: 1...1
    ) { arguments, session throws(CommandFailure) in
        guard let driver = try suspending(session) else { throw .said("Could not resume request: \(unsupported)") }
        do throws(BlockError) { try driver.resumeRequest(tag: arguments[0]) } catch { throw .said("Could not resume request: \(unknown)") }
    }

    static let waitForBreakpoint = IOCommand(
        name: "wait_break", arguments: "tag", summary: "wait until a request stops there", count: 1...1
    ) { arguments, session throws(CommandFailure) in
        guard let driver = try suspending(session) else { throw .said("Could not wait for a request: \(unsupported)") }
        await driver.waitUntilSuspended(tag: arguments[0])
    }

    private static func suspending(_ session: IOSession) throws(CommandFailure) -> (any RequestSuspending)? {
        try session.disk().image.backend.node.requestSuspending
    }

    private static let unsupported = BlockError.text(ofErrno: BlockError(.unsupported, "").errno)
    private static let unknown = BlockError.text(ofErrno: BlockError(.notFound, "").errno)
}
