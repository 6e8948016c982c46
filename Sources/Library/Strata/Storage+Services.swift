import IOCore
import StorageCommands

/// Where a service of this process listens.
public enum ServerAddress: Hashable, Sendable {
    /// A socket in the file system. Its file is removed when the service ends.
    case unix(path: String)
    /// A TCP port, by number; the empty host means every address.
    case tcp(host: String, port: UInt16)
}

extension Storage {
    /// Starts the NBD server of this storage; it has one at a time. Offer disks by `export`.
    /// - Throws: the system's refusal to listen there.
    public func startNBDServer(_ address: ServerAddress) async throws(BlockError) {
        try await core.use { () async throws(BlockError) in try await core.service.startNBDServer(NbdServerOptions(addr: address.socketAddress)) }
    }

    /// Offers a disk to NBD clients.
    /// - Parameters:
    ///   - name: what clients ask for; also the export's id in commands.
    ///   - isWritable: whether clients may write.
    /// - Throws: when no server runs, the name is taken, or the disk cannot be shared so.
    public func export(_ disk: Disk, as name: String, isWritable: Bool = false) async throws(BlockError) {
        let options = BlockExportOptions(.nbd(BlockExportOptionsNbd(name: name)), id: name, nodeName: disk.nodeName, writable: isWritable)
        try await core.use { () async throws(BlockError) in try await core.add(options) }
    }

    /// Stops the NBD server: clients are disconnected, and exports removed.
    public func stopNBDServer() async throws(BlockError) {
        try await core.use { () async throws(BlockError) in try await core.stopNBDServer() }
    }

    /// Serves QMP: other processes can then look at this storage and change it.
    public func startMonitor(_ address: ServerAddress) async throws(BlockError) {
        try await core.use { () async throws(BlockError) in try await core.startMonitor(address.hostAddress) }
    }
}

extension ServerAddress {
    var socketAddress: SocketAddress {
        switch self {
        case .unix(let path): SocketAddress(.unix(UnixSocketAddress(path: path)))
        case .tcp(let host, let port): SocketAddress(.inet(InetSocketAddress(host: host, port: "\(port)")))
        }
    }

    var hostAddress: HostAddress {
        switch self {
        case .unix(let path): .unix(path: path)
        case .tcp(let host, let port): .tcp(host: host, port: "\(port)")
        }
    }
}
