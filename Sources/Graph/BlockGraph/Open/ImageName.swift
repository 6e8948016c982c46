package import QAPIRuntime
package import StrataBase

/// Turns the name of an image into a tree of options, as `blockdev-add` takes them; the format may stay open.
package enum ImageName {
    /// Drivers that hold data themselves instead of interpreting a `file` below.
    package static let protocols: Set<String> = ["file", "host_device", "null-co", "null-aio", "nbd", "blkdebug", "blkverify"]

    /// - Parameters:
    ///   - text: a path; a name with a protocol; or `json:` and an object of options.
    ///   - format: the format to use; nil leaves it open where the name does.
    /// - Throws: what is wrong with the name. The message does not repeat it.
    package static func options(_ text: String, format: String?) throws(BlockError) -> JSONObject {
        if text.hasPrefix("json:") {
            var options = try json(text.dropFirst(5))
            if let format {
                if let driver = options["driver"]?.string, driver != format { throw BlockError(.invalidArgument, "Driver specified twice") }
                options["driver"] = .string(format)
            }
            return try completed(options)
        }
        let file = try FileName(parsing: text).options
        if let format, protocols.contains(format) {
            var options = file
            options["driver"] = .string(format)
            return options
        }
        var options = JSONObject()
        options["driver"] = format.map(JSONValue.string)
        options["file"] = .object(file)
        return options
    }

    /// The options behind `json:`. Keys such as `file.filename` stand for members of members.
    package static func json(_ text: Substring) throws(BlockError) -> JSONObject {
        let value: JSONValue
        do throws(JSONError) {
            value = try JSONValue(parsing: String(text))
        } catch {
            throw BlockError(.invalidArgument, "Could not parse the JSON options: \(error.message)")
        }
        guard let object = value.object else { throw BlockError(.invalidArgument, "Invalid JSON object given") }
        return try DottedKeys.expand(object)
    }

    /// Fills in what each level leaves to custom: the driver of a plain file.
    /// - Throws: for a tree whose root says neither what it is nor where.
    package static func completed(_ options: JSONObject) throws(BlockError) -> JSONObject {
        if options["driver"]?.string == nil, options["file"] == nil { throw BlockError(.invalidArgument, "Must specify either driver or file") }
        return completedBelow(options)
    }

    private static func completedBelow(_ object: JSONObject) -> JSONObject {
        var object = object
        for (key, value) in object.members.map({ ($0.key, $0.value) }) {
            guard ["file", "backing", "data-file", "image", "raw", "test", "log"].contains(key), var child = value.object else { continue }
            // A file name among options is a plain path, whatever colons it contains.
            if child["driver"] == nil, let path = child["filename"]?.string { child["driver"] = .string(FileName.driver(ofPath: path)) }
            object[key] = .object(completedBelow(child))
        }
        return object
    }
}
