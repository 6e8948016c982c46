package import BlockGraph
import IOCore
package import StorageSchema
package import StrataBase

/// A block device of the host (`driver=host_device`): a file whose length is the device's and does not change, whose blocks are discarded and zeroed by
/// the device's own commands, in units that the device names.
///
/// Character devices and CD-ROM drives are refused.
package final class HostDeviceDriver: FileDriver, @unchecked Sendable {  // unchecked: as for files
    package override class var formatName: String { "host_device" }

    package override class func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .hostDevice(let own) = options.branch else {
            throw BlockError(.invalidArgument, "options of another driver were given to 'host_device'")
        }
        let driver = try await HostDeviceDriver(own, opener)
        guard driver.file.isBlockDevice else {
            throw BlockError(.invalidArgument, "'host_device' driver requires '\(own.filename)' to be either a character or block device")
        }
        return driver
    }
}
