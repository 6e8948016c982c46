package import BlockGraph
package import StrataBase

extension VHDXDriver: Checking {
    /// Looks at every entry of the block allocation table: each must have a state that makes sense, and no block may begin beyond the end of the file.
    package func check(repair: CheckRepair, progress: (@Sendable (_ done: Int, _ total: Int) -> Void)?) async throws(BlockError) -> CheckReport {
        var report = try CheckReport(refusing: repair, for: Self.formatName)
        for block in 0..<geometry.blockCount {
            if Task.isCancelled { throw BlockError(.cancelled, "the check was interrupted") }
            progress?(block, geometry.blockCount)
            do throws(BlockError) {
                // One block at a time, so that each is judged by itself.
                let run = try await findRun(at: GuestOffset(block * geometry.blockSize), limit: min(geometry.blockSize, length - block * geometry.blockSize))
                if case .data(let host) = run.place, host.rawValue >= file.length { report.noteDamage("block \(block) lies at \(host), beyond the end of the file") }
            } catch {
                guard error.code == .corruptImage else { throw error }
                report.noteDamage(error.message)
            }
        }
        return report
    }
}
