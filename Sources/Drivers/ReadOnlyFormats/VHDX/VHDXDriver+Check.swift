package import BlockGraph
package import StrataBase

extension VHDXDriver: Checking {
    private static let maximumMessages = 1000

    /// Looks at every entry of the block allocation table: each must have a state that makes sense, and no block may begin beyond the end of the file.
    package func check(repair: CheckRepair, progress: (@Sendable (_ done: Int, _ total: Int) -> Void)?) async throws(BlockError) -> CheckReport {
        guard repair.isEmpty else { throw BlockError(.unsupported, "Images of format 'vhdx' cannot be repaired") }
        var report = CheckReport()
        func note(_ message: String) {
            report.corruptions += 1
            if report.messages.count < Self.maximumMessages { report.messages.append("ERROR: \(message)") }
        }
        for block in 0..<geometry.blockCount {
            if Task.isCancelled { throw BlockError(.cancelled, "the check was interrupted") }
            progress?(block, geometry.blockCount)
            do throws(BlockError) {
                // One block at a time, so that each is judged by itself.
                let run = try await findRun(at: GuestOffset(block * geometry.blockSize), limit: min(geometry.blockSize, length - block * geometry.blockSize))
                if case .data(let host) = run.place, host.rawValue >= file.length { note("block \(block) lies at \(host), beyond the end of the file") }
            } catch {
                guard error.code == .corruptImage else { throw error }
                note(error.message)
            }
        }
        return report
    }
}
