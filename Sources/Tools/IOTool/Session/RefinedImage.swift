import QAPIRuntime
import StrataBase
import ToolSupport

extension ImageReference {
    /// The image that a name stands for, with options that say more about it: `file.locking=off` is about the file of that name. Options win.
    /// - Throws: what is wrong with the name, and `.invalidArgument` for options that name a file too.
    init(named name: String, refinedBy options: JSONObject) throws(BlockError) {
        if name.hasPrefix("json:") {
            try self.init(named: name)
            self.options.merge(options)
        } else {
            try self.init(protocolOf: name)
            self.options = try Self.refined(self.options, by: options, isRoot: true)
        }
    }

    /// Puts a file in the place that the options have for it: in them, or below them, as far down as they name drivers that have a file below.
    private static func refined(_ file: JSONObject, by options: JSONObject, isRoot: Bool) throws(BlockError) -> JSONObject {
        guard let key = childKey(of: options["driver"]?.string, isRoot: isRoot) else {
            if file["filename"] != nil, options["filename"] != nil {
                throw BlockError(.invalidArgument, "Can't specify 'file' and 'filename' options at the same time")
            }
            var file = file
            file.merge(options)
            return file
        }
        var result = options
        switch options[key] {
        case nil: result[key] = .object(file)
        case .object(let below)?: result[key] = .object(try refined(file, by: below, isRoot: false))
        default: throw BlockError(.invalidArgument, "Cannot reference an existing block device with additional options or a new filename")
        }
        return result
    }

    /// What a driver calls its file; nil for one that is the file. Without a driver, the root is a format and what lies below is the file.
    private static func childKey(of driver: String?, isRoot: Bool) -> String? {
        guard let driver else { return isRoot ? "file" : nil }
        if driver == "blkdebug" { return "image" }
        return protocols.contains(driver) ? nil : "file"
    }
}
