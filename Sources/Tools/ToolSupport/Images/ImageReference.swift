package import QAPIRuntime
package import StrataBase

/// An image as a user names it, translated into block device options.
///
/// Four notations exist: a path; a path behind a protocol (`file:disk`); `json:` and an object of options; and, with `--image-opts`, dotted
/// options. What a notation leaves open stays open here: `options` may lack the format, which the opener then finds out by looking.
package struct ImageReference: Sendable, Hashable {
    /// As the user wrote it; messages repeat it.
    package let text: String
    /// Options as `blockdev-add` takes them, except that a format node may lack `driver`. Scalars may be strings.
    package var options: JSONObject

    /// The options as a JSON value.
    package var json: JSONValue { .object(options) }

    /// The driver that was asked for; nil when the format is to be found out.
    package var driver: String? { options["driver"]?.string }

    /// - Parameter format: the format that the user insists on, nil to find out.
    /// - Throws: for a protocol that we do not speak and JSON that is none. The message does not repeat the name.
    package init(named text: String, format: String? = nil) throws(BlockError) {
        self.text = text
        if text.hasPrefix("json:") {
            options = try Self.parseJSON(text.dropFirst(5))
            if let format {
                if let driver = options["driver"]?.string, driver != format {
                    throw BlockError(.invalidArgument, "Driver specified twice")
                }
                options["driver"] = .string(format)
            }
        } else {
            let file = try FileName(parsing: text)
            options = JSONObject()
            if let format, Self.protocols.contains(format) {
                options = file.options
                options["driver"] = .string(format)
                return
            }
            options["driver"] = format.map(JSONValue.string)
            options["file"] = .object(file.options)
        }
        try complete()
    }

    /// A file that may not exist yet, by its name.
    /// - Throws: for protocols that cannot make files.
    package init(protocolOf text: String) throws(BlockError) {
        if FileName.protocolName(of: text) == "json" { throw BlockError(.invalidArgument, "Unknown protocol 'json'") }
        self.text = text
        options = text.isEmpty ? JSONObject() : try FileName(parsing: text).options
    }

    /// Whether the name begins with a protocol rather than being a path.
    package static func hasProtocol(_ text: String) -> Bool { FileName.protocolName(of: text) != nil }

    /// - Parameter text: what stands where a name would, under `--image-opts`.
    package init(imageOptions text: String) throws(BlockError) {
        self.text = text
        let tree: JSONValue
        do throws(QMPError) {
            tree = try KeyValueParser.parse(text, impliedKey: "file")
        } catch {
            throw BlockError(.invalidArgument, error.message)
        }
        guard let object = tree.object else { throw BlockError(.invalidArgument, "Must specify either driver or file") }
        options = object
        try complete()
    }

    /// Drivers that hold data themselves instead of interpreting a `file` below.
    package static let protocols: Set<String> = ["file", "host_device", "null-co", "null-aio", "nbd"]

    private static func parseJSON(_ text: Substring) throws(BlockError) -> JSONObject {
        let value: JSONValue
        do throws(JSONError) {
            value = try JSONValue(parsing: String(text))
        } catch {
            throw BlockError(.invalidArgument, "Could not parse the JSON options: \(error.message)")
        }
        guard let object = value.object else { throw BlockError(.invalidArgument, "Invalid JSON object given") }
        return try DottedKeys.expand(object)
    }

    /// Fills in what each level leaves to custom: the protocol of a file name.
    private mutating func complete() throws(BlockError) {
        if options["driver"]?.string == nil, options["file"] == nil {
            throw BlockError(.invalidArgument, "Must specify either driver or file")
        }
        options = try Self.completed(options)
    }

    private static func completed(_ object: JSONObject) throws(BlockError) -> JSONObject {
        var object = object
        for (key, value) in object.members.map({ ($0.key, $0.value) }) {
            guard key == "file" || key == "backing" || key == "data-file", var child = value.object else { continue }
            // A file name among options is a plain path, whatever colons it contains.
            if child["driver"] == nil, child["filename"] != nil { child["driver"] = "file" }
            object[key] = .object(try completed(child))
        }
        return object
    }
}
