/// A line of a schema file, and how the reader got to that file.
package struct SourceLocation: Hashable, Sendable, CustomStringConvertible {
    package let file: String
    /// Counted from one.
    package let line: Int
    /// The lines of the `include` directives that led here, innermost first.
    package let includedFrom: [String]

    package init(file: String, line: Int, includedFrom: [String] = []) {
        self.file = file
        self.line = line
        self.includedFrom = includedFrom
    }

    package var description: String { "\(file):\(line)" }
}

/// The first thing that is wrong with a schema.
package struct SchemaError: Error, Hashable, Sendable, CustomStringConvertible {
    package let location: SourceLocation
    /// One sentence without a newline.
    package let message: String
    /// What is being defined, such as `struct 'Point'`.
    package var definition: String?

    package init(_ location: SourceLocation, _ message: String, in definition: String? = nil) {
        self.location = location
        self.message = message
        self.definition = definition
    }

    /// One line: `FILE:LINE: in struct 'Point': message (included from main.json:3)`.
    package var description: String {
        var text = "\(location): "
        if let definition { text += "in \(definition): " }
        text += message
        if !location.includedFrom.isEmpty { text += " (included from \(location.includedFrom.joined(separator: ", from ")))" }
        return text
    }
}
