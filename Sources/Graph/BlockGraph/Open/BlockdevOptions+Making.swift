package import StorageSchema
package import StrataBase
extension BlockdevOptions {
    package static func hostFile(_ path: String) -> BlockdevOptions { BlockdevOptions.stub(.file) }
    package static func format(_ driver: BlockdevDriver, over file: BlockdevRef) throws(BlockError) -> BlockdevOptions { BlockdevOptions.stub(driver) }
}
