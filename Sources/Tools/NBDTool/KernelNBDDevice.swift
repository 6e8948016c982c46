import IOCore
import StrataBase

/// A block device of the kernel's own NBD client: `/dev/nbd0`.
struct KernelNBDDevice {
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

    /// Ends the connection behind the device.
    func disconnect() throws(BlockError) {
        guard device.isBlockDevice else { throw BlockError(.invalidArgument, "\(path) is not a block device") }
        try device.disconnectNBD()
    }
}
