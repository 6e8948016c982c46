import IOCore
import NBDServer
import StrataBase

extension StorageService {
    /// Stops the NBD server: its clients are disconnected and its exports removed.
    package func nbdServerStop() async throws {
        try await changes.withLock { () async throws(BlockError) in
            guard let server = nbdServer else { throw BlockError(.invalidArgument, "NBD server not running") }
            nbdServer = nil
            await server.stop()
        }
    }
}
