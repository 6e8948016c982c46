package import Foundation

/// Ends programs that put themselves into the background when this process is gone, in whatever way it went.
///
/// A process of its own, in a session of its own, so that what kills the tests does not kill it. It hears of each program through its
/// standard input, and when the only other end of that is closed it kills those that are left.
package enum Guardian {
    private static let watcher = Result { try ChildProcess("setsid", ["bash", "-c", script], input: nil) }

    /// Lines are `+PID` and `-PID`.
    private static let script = """
        declare -A left
        while read -r line; do
            if [[ $line == +* ]]; then left[${line#+}]=1; else unset "left[${line#-}]"; fi
        done
        for each in "${!left[@]}"; do kill -KILL "$each" 2>/dev/null; done
        exit 0
        """

    private static func tell(_ line: String) throws { try watcher.get().type(line + "\n") }

    fileprivate static func watch(_ process: pid_t) throws { try tell("+\(process)") }
    fileprivate static func release(_ process: pid_t) { try? tell("-\(process)") }
}

/// A server that a program has left in the background. It does not outlive this object, nor the tests.
package final class BackgroundServer: Sendable {
    package let identifier: pid_t

    /// Runs a program that puts its server into the background and notes the server's number in a file.
    package init(_ program: String, _ arguments: [String], pidFile: String, in folder: URL? = nil) throws {
        try? FileManager.default.removeItem(atPath: pidFile)
        func started() -> pid_t? {
            (try? String(contentsOfFile: pidFile, encoding: .utf8)).flatMap { pid_t($0.trimmingCharacters(in: .whitespacesAndNewlines)) }
        }
        do { try mustRun(program, arguments, in: folder) } catch {
            // It may have got as far as the background all the same.
            if let late = started() { kill(late, SIGKILL) }
            throw error
        }
        var found: pid_t?
        _ = waitUntil {
            found = started()
            return found != nil
        }
        guard let found else { throw HarnessError("\(program) has not said which process serves") }
        identifier = found
        do { try Guardian.watch(found) } catch {
            kill(found, SIGKILL)
            throw error
        }
    }

    package var isRunning: Bool { kill(identifier, 0) == 0 }

    /// Asks it to end. - Returns: whether it has ended in time.
    package func stop(_ signal: Int32 = SIGTERM) -> Bool {
        kill(identifier, signal)
        return waitForEnd()
    }

    /// Whether it ends by itself in time.
    package func waitForEnd() -> Bool { waitUntil { !isRunning } }

    deinit {
        if isRunning { kill(identifier, SIGKILL) }
        Guardian.release(identifier)
    }
}
