package import BlockGraph
package import StrataBase

extension VMDKDriver: Checking {
    /// Looks at every grain: none may begin beyond the end of the file.
    package func check(repair: CheckRepair, progress: (@Sendable (_ done: Int, _ total: Int) -> Void)?) async throws(BlockError) -> CheckReport {
        var report = try CheckReport(refusing: repair, for: Self.formatName)
        var position = 0
        while position < length {
            if Task.isCancelled { throw BlockError(.cancelled, "the check was interrupted") }
            progress?(position, length)
            let run = try await findRun(at: GuestOffset(position), limit: length - position)
            switch run.place {
            case .data(let host), .compressed(let host):
                if host.rawValue >= file.length { report.noteDamage("cluster at guest offset \(position) lies at \(host), beyond the end of the file") }
            case .zero, .unallocated: break
            }
            position += run.byteCount
        }
        return report
    }
}
