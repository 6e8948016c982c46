// Options that many commands have: declared once, so that they read and mean the same everywhere.

extension OptionDeclaration {
    package static func quiet(_ key: Key) -> OptionDeclaration {
        OptionDeclaration(key, "q", "quiet", help: "say nothing unless something goes wrong")
    }

    /// `-p`, `--progress` and `--progress=json`, which every command has that may take long.
    package static func progress(_ key: Key) -> OptionDeclaration {
        var option = OptionDeclaration(key, "p", "progress", help: "show how far the work is;", "--progress=json prints one JSON object on each line")
        option.hasOptionalValue = true
        return option
    }

    package static func format(_ key: Key) -> OptionDeclaration {
        OptionDeclaration(key, "f", "format", value: "FMT", help: "the image's format; found out when not given")
    }

    package static func imageOptions(_ key: Key) -> OptionDeclaration {
        OptionDeclaration(key, nil, "image-opts", help: "FILENAME is a list of options instead of a file name", "(not together with --format)")
    }

    package static func cache(_ key: Key, _ letter: Character = "t") -> OptionDeclaration {
        OptionDeclaration(key, letter, "cache", value: "CACHE", help: "cache mode (default: writeback)")
    }

    package static func forceShare(_ key: Key) -> OptionDeclaration {
        OptionDeclaration(key, "U", "force-share", help: "open the image even if another process writes to it")
    }

    package static func output(_ key: Key) -> OptionDeclaration {
        OptionDeclaration(key, nil, "output", value: "human|json", help: "output for people (the default) or for programs")
    }

    package static func object(_ key: Key) -> OptionDeclaration {
        OptionDeclaration(key, nil, "object", value: "OBJDEF", help: "an object that other options refer to")
    }
}

/// The keys of a command that acts on one image.
package protocol ImageOptionKey: OptionKey {
    static var format: Self { get }
    static var imageOptions: Self { get }
}

/// The keys of a command that may take long.
package protocol ProgressOptionKey: OptionKey {
    static var quiet: Self { get }
    static var progress: Self { get }
}

/// An image as a command line names it.
package struct ImageArgument: Sendable, Hashable {
    /// A name, or a list of options.
    package let text: String
    /// Whether the text is options (`--image-opts`).
    package let isOptions: Bool
    /// What `-f` says; nil to find out.
    package let format: String?

    package init(_ text: String, isOptions: Bool = false, format: String? = nil) {
        self.text = text
        self.isOptions = isOptions
        self.format = format
    }
}

extension ParsedArguments where Key: ImageOptionKey {
    /// The image that `text` names, under `-f` or `--image-opts`.
    /// - Throws: when both are given.
    package func image(_ text: String) throws(ToolFailure) -> ImageArgument {
        let image = ImageArgument(text, isOptions: contains(.imageOptions), format: last(.format))
        if image.isOptions, image.format != nil { throw ToolFailure("--image-opts and --format are mutually exclusive") }
        return image
    }
}

extension ParsedArguments where Key: ProgressOptionKey {
    /// What `-p`, `--progress=` and `-q` ask for.
    package func progressStyle() throws(ToolFailure) -> ProgressReporter.Style {
        let value = last(.progress)
        if let value, value != "json", value != "line" { throw ToolFailure("--progress expects 'line' or 'json' not '\(value)'") }
        if contains(.quiet) { return .silent }
        return !contains(.progress) ? .whenItTakesLong : value == "json" ? .json : .line
    }
}

extension CommandContext {
    /// The only operand of a command that takes one image.
    package func oneImageName(_ operands: [String]) throws(ToolFailure) -> String {
        guard operands.count == 1 else { throw usageFailure("Expecting one image file name") }
        return operands[0]
    }
}
