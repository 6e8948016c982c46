package import StorageSchema
package import StrataBase

/// Turns the backing file name that an image stores into options.
package enum BackingReference {
    /// A name that an image stores, made absolute: relative names are relative to the directory of the image that names them.
    package static func resolve(_ file: String, relativeTo imageFilename: String?) -> String {
        if file.hasPrefix("/") { return file }
        guard let imageFilename, let slash = imageFilename.lastIndex(of: "/") else { return file }
        return imageFilename[...slash] + file
    }

    /// Options for a backing file in a host file.
    ///
    /// Names with a protocol (`nbd://…`) or a JSON description are plain file names here: an image must not choose what else we open.
    package static func options(file: String, format: String, imageFilename: String?) throws(BlockError) -> BlockdevOptions {
        guard let driver = BlockdevDriver(rawValue: format) else {
            throw BlockError(.invalidArgument, "The image names the unknown backing format '\(format)'")
        }
        let path = resolve(file, relativeTo: imageFilename)
        let protocolOptions = BlockdevOptions.hostFile(path)
        if driver == .file { return protocolOptions }
        return try BlockdevOptions.format(driver, over: .definition(protocolOptions))
    }
}
