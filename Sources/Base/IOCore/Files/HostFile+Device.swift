internal import CStrataLinux
package import StrataBase

// What block devices have that files have not.

extension HostFile {
    /// What a block device says about itself. Bytes.
    package struct DeviceLimits: Sendable, Hashable {
        /// The smallest unit of everything.
        package var logicalBlockSize: Int
        /// Discards of less have no effect; 0 where the device does not discard.
        package var discardGranularity: Int
        /// A good size for requests, 0 if there is none.
        package var optimalTransfer: Int
    }

    /// Nil for what is no block device.
    package var deviceLimits: DeviceLimits? {
        guard isBlockDevice else { return nil }
        var geometry = strata_device_geometry()
        guard unsafe strata_device_describe(descriptor, &geometry) == 0 else { return nil }
        let block = Int(geometry.logical_block)
        let granularity = Self.queueValue("discard_granularity", geometry) ?? 0
        return DeviceLimits(
            logicalBlockSize: block.isPowerOfTwo ? block : 512, discardGranularity: granularity.isPowerOfTwo ? granularity : 0,
            optimalTransfer: Int(geometry.optimal_size))
    }

    /// Makes a device of the kernel's NBD client a disk of what a server has.
    /// - Parameters:
    ///   - socket: leads to the server; the handshake is done, with simple replies. The kernel uses it from now on.
    ///   - byteCount: the size of the disk in bytes; what is no whole sector is left out.
    ///   - flags: the server's transmission flags.
    /// - Throws: the kernel's refusal, for other files among others.
    package func attachNBD(to socket: ConnectedSocket, byteCount: Int, flags: UInt16) throws(BlockError) {
        socket.setNonBlocking(false)
        let result = strata_nbd_attach(descriptor, socket.descriptor, 512, UInt64(byteCount / 512), UInt32(flags))
        if result < 0 { throw BlockError(errno: -result, "Failed to set NBD socket") }
    }

    /// Serves an attached device until it is disconnected. Blocks for all that time.
    package func runNBD() throws(BlockError) {
        let result = strata_nbd_run(descriptor)
        if result < 0 { throw BlockError(errno: -result, "Serving \(path)") }
    }

    /// Ends the connection behind a device of the kernel's NBD client.
    /// - Throws: the kernel's refusal, for other devices among others.
    package func disconnectNBD() throws(BlockError) {
        let result = strata_nbd_disconnect(descriptor)
        if result < 0 { throw BlockError(errno: -result, "Cannot disconnect \(path)") }
    }

    /// A number that the kernel shows of a device's queue; that of a partition is its disk's.
    private static func queueValue(_ name: String, _ device: strata_device_geometry) -> Int? {
        for folder in ["queue", "../queue"] {
            do throws(BlockError) {
                let text = try SmallFile.read("/sys/dev/block/\(device.major):\(device.minor)/\(folder)/\(name)", limit: 4096)
                return Int(String(decoding: text, as: UTF8.self).prefix { $0 != "\n" })
            } catch {
                // Not there: the other place, or a kernel that does not tell.
            }
        }
        return nil
    }

    /// Whether a name is that of a block device. Looks the name up.
    package static func isBlockDevice(_ path: String) -> Bool {
        // SAFETY: the C function reads the path, which lives for the call.
        unsafe strata_is_block_device(path) == 1
    }

    /// Lets a device forget a range; its contents are undefined afterwards.
    package func discardDevice(at offset: HostOffset, byteCount: Int) async throws(BlockError) -> SpaceOutcome {
        try await space("discarding a range of") { [descriptor] in strata_device_discard(descriptor, Int64(offset.rawValue), Int64(byteCount)) }
    }

    /// Makes a range of a device read as zeroes; the kernel writes them where the device has no command for it.
    package func zeroDevice(at offset: HostOffset, byteCount: Int) async throws(BlockError) -> SpaceOutcome {
        try await space("zeroing a range of") { [descriptor] in strata_device_zero(descriptor, Int64(offset.rawValue), Int64(byteCount)) }
    }
}
