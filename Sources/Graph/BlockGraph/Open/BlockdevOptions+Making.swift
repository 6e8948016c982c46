import IOCore
package import StorageSchema
package import StrataBase

extension BlockdevOptions {
    /// A file or a block device of the host, whichever has that name.
    package static func hostFile(_ path: String) -> BlockdevOptions {
        let options = BlockdevOptionsFile(filename: path)
        return BlockdevOptions(HostFile.isBlockDevice(path) ? .hostDevice(options) : .file(options))
    }

    /// A format driver with default options over `file`.
    /// - Throws: `.invalidArgument` when the driver does not keep a disk in a file.
    package static func format(_ driver: BlockdevDriver, over file: BlockdevRef) throws(BlockError) -> BlockdevOptions {
        switch driver {
        case .raw: BlockdevOptions(.raw(BlockdevOptionsRaw(file: file)))
        case .qcow2: BlockdevOptions(.qcow2(BlockdevOptionsQcow2(file: file)))
        case .vdi: BlockdevOptions(.vdi(BlockdevOptionsGenericFormat(file: file)))
        case .vhdx: BlockdevOptions(.vhdx(BlockdevOptionsGenericFormat(file: file)))
        case .vmdk: BlockdevOptions(.vmdk(BlockdevOptionsGenericCOWFormat(file: file)))
        case .vpc: BlockdevOptions(.vpc(BlockdevOptionsGenericFormat(file: file)))
        default: throw BlockError(.invalidArgument, "Driver '\(driver.rawValue)' is not an image format")
        }
    }
}
