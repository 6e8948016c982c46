package import StorageSchema
package import StrataBase

extension QCOW2Driver {
    /// Whether an image can be made so, before anything is done to the file.
    /// - Throws: what `create` would refuse.
    package static func checkCreation(_ options: BlockdevCreateOptionsQcow2) throws(BlockError) { _ = try CreationPlan(options) }
}
