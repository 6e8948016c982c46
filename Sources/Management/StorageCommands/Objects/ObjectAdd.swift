import BlockGraph
package import StorageSchema
import StrataBase

extension StorageService {
    /// Makes an object.
    package func objectAdd(_ arguments: ObjectOptions) async throws {
        try checkNotShuttingDown()
        guard NodeNames.isWellFormed(arguments.id) else { throw BlockError(.invalidArgument, "Parameter 'id' expects an identifier") }
        switch arguments.branch {
        case .iothread(let properties):
            try properties.check()
            try threads.add(arguments.id)
        }
    }
}

extension IothreadProperties {
    /// The numbers are advice about how to poll and batch, which our loops find out from the load by themselves; that they make sense is
    /// checked all the same, so that a script that works here works there.
    fileprivate func check() throws(BlockError) {
        let values = [
            ("aio-max-batch", aioMaxBatch), ("thread-pool-min", threadPoolMin), ("thread-pool-max", threadPoolMax), ("poll-max-ns", pollMaxNs),
            ("poll-grow", pollGrow), ("poll-shrink", pollShrink),
        ]
        for case (let name, let value?) in values where value < 0 {
            throw BlockError(.invalidArgument, "\(name) value must be in range [0, \(Int.max)]")
        }
        if threadPoolMax == 0 { throw BlockError(.invalidArgument, "thread-pool-max must be greater than 0") }
        if let threadPoolMin, let threadPoolMax, threadPoolMin > threadPoolMax {
            throw BlockError(.invalidArgument, "thread-pool-min (\(threadPoolMin)) is greater than thread-pool-max (\(threadPoolMax))")
        }
    }
}
