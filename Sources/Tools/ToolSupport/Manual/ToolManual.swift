/// Everything that a tool's declarations say, whatever its keys: manual pages and shell completions are made from it.
package struct ToolManual: Sendable {
    package struct Option: Sendable {
        package var short: Character?
        package var long: String?
        /// How the value is called; nil for an option that takes none.
        package var value: String?
        package var help: [String]
    }

    package struct Command: Sendable {
        /// The word that selects it; the tool's own name for the tool itself.
        package var name: String
        package var summary: String
        package var usage: [String]
        package var options: [Option]
        package var operands: [OperandDeclaration]

        package init<Key: OptionKey>(_ declaration: CommandDeclaration<Key>) {
            name = declaration.name
            summary = declaration.summary
            usage = declaration.usage
            operands = declaration.operands
            options = declaration.options.map { Option(short: $0.short, long: $0.long, value: $0.value, help: $0.help) }
            let hasShort = declaration.options.contains { $0.short == "T" }
            options.append(Option(short: hasShort ? nil : "T", long: "trace", value: "TRACE", help: TraceOptions.help))
        }
    }

    /// More to read: a title, and paragraphs behind terms.
    package struct Section: Sendable {
        package var title: String
        package var entries: [(term: String, text: [String])]
        package init(_ title: String, _ entries: [(term: String, text: [String])]) {
            self.title = title
            self.entries = entries
        }
    }

    package var tool: ToolName
    /// The tool's own options.
    package var command: Command
    package var subcommands: [Command] = []
    package var sections: [Section] = []

    package init(_ tool: ToolName, _ command: Command, subcommands: [Command] = [], sections: [Section] = []) {
        self.tool = tool
        self.command = command
        self.subcommands = subcommands
        self.sections = sections
    }
}
