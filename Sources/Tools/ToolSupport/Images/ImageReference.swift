import BlockGraph
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
        options = try ImageName.options(text, format: format)
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

    /// - Parameter text: what stands where a name would, under `--image-opts`: dotted options or a JSON object.
    package init(imageOptions text: String) throws(BlockError) {
        self.text = text
        let tree: JSONValue
        do throws(QMPError) {
            tree = try KeyValueParser.parseArgument(text, impliedKey: "file").value
        } catch {
            throw BlockError(.invalidArgument, error.message)
        }
        guard let object = tree.object else { throw BlockError(.invalidArgument, "Must specify either driver or file") }
        options = try ImageName.completed(object)
    }

    /// - Parameter options: all there is; `text` stays empty.
    package init(options: JSONObject) throws(BlockError) {
        text = ""
        self.options = try ImageName.completed(options)
    }

    /// Drivers that hold data themselves instead of interpreting a `file` below.
    package static var protocols: Set<String> { ImageName.protocols }
}
