import QAPIRuntime
package import StorageSchema
package import StrataBase

/// Turns the backing file name that an image stores into options.
package enum BackingReference {
    /// A name that an image stores, made absolute: a plain relative path is relative to the directory of the image that names it. Names with a
    /// protocol (`nbd://…`, `json:…`) stay as they are.
    /// - Parameter imageFilename: the host file of the image; links are not followed, as in QEMU.
    package static func resolve(_ file: String, relativeTo imageFilename: String?) -> String {
        if HostPath.isAbsolute(file) || FileName.protocolName(of: file) != nil { return file }
        return inFolder(of: imageFilename, file)
    }

    /// Options for the data file that an image names: the file of exactly that name, with no format on top. An image must not choose servers, filters and
    /// formats, and through them other files: nothing in the name means anything but `/`.
    /// - Parameter imageFilename: as for `options`.
    package static func dataFileOptions(_ file: String, imageFilename: String?) -> BlockdevOptions {
        .hostFile(HostPath.isAbsolute(file) ? file : inFolder(of: imageFilename, file))
    }

    private static func inFolder(of imageFilename: String?, _ file: String) -> String {
        guard let imageFilename, let slash = imageFilename.utf8.lastIndex(of: UInt8(ascii: "/")) else { return file }
        return String(decoding: imageFilename.utf8[...slash], as: UTF8.self) + file
    }

    /// Options for the backing file that an image names.
    /// - Parameter imageFilename: the host file of the image, nil when it does not lie in one.
    /// - Throws: for formats and protocols that we do not know, and for relative names where there is nothing to be relative to.
    package static func options(file: String, format: String, imageFilename: String?) throws(BlockError) -> BlockdevOptions {
        guard BlockdevDriver(rawValue: format) != nil else { throw BlockError(.invalidArgument, "Unknown driver '\(format)'") }
        if imageFilename == nil, !HostPath.isAbsolute(file), FileName.protocolName(of: file) == nil {
            throw BlockError(
                .invalidArgument, "The image names the backing file '\(file)', but does not lie in a directory that this could be relative to",
                hint: "Name the backing file in the options.")
        }
        let name = resolve(file, relativeTo: imageFilename)
        let tree: JSONObject
        if name.hasPrefix("json:") {
            // The format beside the name decides, whatever the description says.
            var described = try ImageName.json(name.dropFirst(5))
            described["driver"] = .string(format)
            tree = try ImageName.completed(described)
        } else {
            tree = try ImageName.options(name, format: format)
        }
        do throws(QMPError) {
            return try BlockdevOptions(decoding: .object(tree), mode: .keyValue)
        } catch {
            // The image is at fault here, and not what the user has typed.
            let isFileMissing = error.message == "Parameter 'file' is missing"
            throw BlockError(.invalidArgument, isFileMissing ? "A block device must be specified for \"file\"" : error.message)
        }
    }
}
