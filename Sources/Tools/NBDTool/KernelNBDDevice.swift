import IOCore
import NBDClient
import NBDProtocol
import StrataBase

/// A block device of the kernel's own NBD client: `/dev/nbd0`.
/// Source: the kernel's `linux/nbd.h` and the manual page of nbd-client.
final class KernelNBDDevice: Sendable {
    private let path: String
    private let device: HostFile

    /// - Parameter what: how a failure begins.
    /// - Throws: when there is no such device, which is so on kernels without NBD.
    init(opening path: String, what: String) throws(BlockError) {
        self.path = path
        do throws(BlockError) {
            device = try HostFile(opening: path, .init(writable: true))
        } catch {
            throw BlockError(errno: error.errno, "\(what) \(path)")
        }
    }

    /// Makes the device a disk of what a server exports.
    /// - Parameters:
    ///   - socket: has just been connected to the server.
    ///   - onEnd: called on another thread when the device is connected no more.
    func connect(_ socket: ConnectedSocket, export: String, onEnd: @escaping @Sendable () -> Void) async throws(BlockError) {
        let plain = try await PlainSession(over: socket, export: export)
        try device.attachNBD(to: plain.socket, byteCount: plain.session.byteCount, flags: plain.session.flags.rawValue)
        let device = device
        Task {
            await BlockingPool.run {
                do throws(BlockError) { try device.runNBD() } catch { StandardStreams.printError("\(error)\n") }
                withExtendedLifetime(plain) {}
            }
            onEnd()
        }
        // Whoever opens the device now has the kernel look for partitions.
        let path = path
        await BlockingPool.run { do throws(BlockError) { _ = try HostFile(opening: path) } catch {} }
    }

    /// Ends the connection behind the device.
    func disconnect() throws(BlockError) {
        guard device.isBlockDevice else { throw BlockError(.invalidArgument, "\(path) is not a block device") }
        try device.disconnectNBD()
    }
}
