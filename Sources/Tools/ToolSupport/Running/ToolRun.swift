import IOCore
import StrataBase
import Synchronization
import TraceRuntime

/// Running a tool's body: on an I/O context, with failures printed once, at the outside.
package enum ToolRun {
    /// Runs `body`; a failure goes to standard error behind `name`.
    /// - Returns: the exit status.
    package static func reportingFailures(name: String, _ body: () throws(ToolFailure) -> Int32) -> Int32 {
        StandardStreams.programName.withLock { $0 = name }
        defer { TraceOutput.flush() }
        do throws(ToolFailure) {
            return try body()
        } catch {
            if error != .nothingLeftToDo { StandardStreams.printError(error.text(name: name)) }
            return error.status
        }
    }

    /// Runs `body` as the main task of the calling thread, which becomes an I/O context until it returns.
    package static func onMainContext<R: Sendable>(_ body: @escaping @Sendable () async throws(ToolFailure) -> R) throws(ToolFailure) -> R {
        let result: Result<R, ToolFailure>
        do throws(BlockError) {
            result = try IOContext.runMain { () async -> Result<R, ToolFailure> in
                do throws(ToolFailure) { return .success(try await body()) } catch { return .failure(error) }
            }
        } catch {
            throw ToolFailure(nil, error)
        }
        return try result.get()
    }
}
