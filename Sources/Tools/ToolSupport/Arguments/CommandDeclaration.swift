/// The names by which a command's code knows its options. Every command has `--help`.
package protocol OptionKey: Hashable, Sendable {
    static var help: Self { get }
}

/// What a command accepts, declared once: the parser, `--help` and the manual pages all read this.
///
/// `Key` names the options for the code that acts on them, so that a switch over parsed options is exhaustive. That it is an `OptionKey` only those
/// ask for who use it: a condition of the type itself would be looked up among all conformances of the program whenever a tool starts.
package struct CommandDeclaration<Key: Sendable>: Sendable {
    /// The word that selects the command, or the tool's own name for a tool without commands.
    package var name: String
    /// What the command does, in one sentence without a full stop.
    package var summary: String
    /// The lines after the program's name in the usage text.
    package var usage: [String]
    package var options: [OptionDeclaration<Key>]
    package var operands: [OperandDeclaration]
    /// Whether the word after the first operand is an operand too if it begins with a dash and a digit: a size to take away.
    package var hasNegativeOperand = false

    /// - Parameter options: without `--help`, which is added.
    package init(
        _ name: String, summary: String, usage: [String], options: [OptionDeclaration<Key>], operands: [OperandDeclaration] = []
    ) where Key: OptionKey {
        self.name = name
        self.summary = summary
        self.usage = usage
        self.options = [OptionDeclaration(.help, "h", "help", help: "display this help and exit")] + options
        self.operands = operands
    }
}

/// One option: `-f`, `--format` or both.
package struct OptionDeclaration<Key: Sendable>: Sendable {
    package var key: Key
    /// The letter after one dash.
    package var short: Character?
    /// The word after two dashes.
    package var long: String?
    /// How the value is called in the help text; nil for an option that takes none.
    package var value: String?
    /// Whether the word, and not the letter, may have a value after `=`.
    package var hasOptionalValue = false
    /// Whether QEMU's tool does not have the word: it does not make one of QEMU's ambiguous that somebody shortens.
    package var isOwnWord = false
    /// One or more lines of help.
    package var help: [String]

    package init(_ key: Key, _ short: Character?, _ long: String?, value: String? = nil, help: String...) {
        self.key = key
        self.short = short
        self.long = long
        self.value = value
        self.help = help
    }

    package var takesValue: Bool { value != nil }

    /// The same with a word that QEMU's tool does not have.
    package var ownWord: OptionDeclaration {
        var option = self
        option.isOwnWord = true
        return option
    }
}

/// An argument that is not an option, for the help text.
package struct OperandDeclaration: Sendable {
    package var name: String
    package var help: [String]

    package init(_ name: String, help: String...) {
        self.name = name
        self.help = help
    }
}

extension CommandDeclaration {
    /// The text of `--help`.
    /// - Parameter program: how the user called us, as in `strata img create`.
    package func helpText(program: String) -> String {
        var text = "\(summary).  Usage:\n\n"
        for (index, line) in usage.enumerated() {
            text += index == 0 ? "  \(program) \(line)\n" : "        \(line)\n"
        }
        text += "\nOptions:\n"
        for option in options {
            let names = [option.short.map { "-\($0)" }, option.long.map { "--\($0)" }].compactMap(\.self).joined(separator: ", ")
            text += "  \(names)\(option.value.map { " \($0)" } ?? "")\n"
            for line in option.help { text += "     \(line)\n" }
        }
        text += options.contains { $0.short == "T" } ? "  --trace TRACE\n" : "  -T, --trace TRACE\n"
        for line in TraceOptions.help { text += "     \(line)\n" }
        if !operands.isEmpty { text += "\nArguments:\n" }
        for operand in operands {
            text += "  \(operand.name)\n"
            for line in operand.help { text += "     \(line)\n" }
        }
        return text
    }
}
