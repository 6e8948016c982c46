import IOCore
import NBDServer
package import StorageSchema
package import StrataBase

extension StorageService {
    /// Starts the NBD server. There is one at a time.
    package func nbdServerStart(_ arguments: NbdServerOptionsLegacy) async throws {
        try await start { () throws(BlockError) in try NBDServer.Configuration(arguments, objects: objects) }
    }

    /// The same with the options of the command line.
    package func startNBDServer(_ options: NbdServerOptions) async throws(BlockError) {
        try await start { () throws(BlockError) in try NBDServer.Configuration(options, objects: objects) }
    }

    private func start(_ configure: () throws(BlockError) -> NBDServer.Configuration) async throws(BlockError) {
        try await changes.withLock { () async throws(BlockError) in
            try checkNotShuttingDown()
            if nbdServer != nil { throw BlockError(.alreadyExists, "NBD server already running") }
            let server = NBDServer(try configure(), context: context, registry: exports)
            try await server.start()
            nbdServer = server
        }
    }
}
