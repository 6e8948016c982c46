/// A tool's page for `man`, in the language of the `man` macros.
package enum ManualPage {
    /// The page of one tool.
    /// - Parameter manuals: all tools, for the references at the end.
    package static func text(_ manual: ToolManual, among manuals: [ToolManual]) -> String {
        let name = "strata\\-\(manual.tool.rawValue)"
        var page = ".TH \"STRATA-\(manual.tool.rawValue.uppercased())\" 1 \"\" \"Strata \(VersionText.version)\" \"Strata\"\n"
        page += ".SH NAME\n\(name) \\- \(escaped(manual.tool.summary))\n"
        page += ".SH SYNOPSIS\n" + synopsis("strata \(manual.tool.rawValue)", manual.command.usage)
        page += ".SH OPTIONS\n" + options(manual.command.options) + operands(manual.command.operands)
        if !manual.subcommands.isEmpty {
            page += ".SH COMMANDS\n"
            for command in manual.subcommands {
                page += ".SS \(escaped(command.name))\n\(sentence(command.summary))\n"
                page += ".PP\n" + synopsis("strata \(manual.tool.rawValue) \(command.name)", command.usage)
                page += options(command.options) + operands(command.operands)
            }
        }
        for section in manual.sections {
            page += ".SH \(escaped(section.title.uppercased()))\n"
            for entry in section.entries { page += ".TP\n.B \(escaped(entry.term))\n\(lines(entry.text))" }
        }
        let others = manuals.filter { $0.tool != manual.tool }.map { ".BR strata\\-\($0.tool.rawValue) (1)" }
        page += ".SH SEE ALSO\n" + others.joined(separator: ",\n") + "\n"
        return page
    }

    private static func synopsis(_ program: String, _ usage: [String]) -> String {
        usage.enumerated().map { index, line in
            (index == 0 ? ".B \(escaped(program))\n" : ".br\n") + "\(escaped(line))\n"
        }.joined()
    }

    private static func options(_ options: [ToolManual.Option]) -> String {
        options.map { option in
            let names = [option.short.map { "-\($0)" }, option.long.map { "--\($0)" }].compactMap(\.self).map { "\\fB\(inline($0))\\fR" }
            let value = option.value.map { " \\fI\(inline($0))\\fR" } ?? ""
            return ".TP\n\(names.joined(separator: ", "))\(value)\n\(lines(option.help))"
        }.joined()
    }

    private static func operands(_ operands: [OperandDeclaration]) -> String {
        operands.map { ".TP\n.I \(escaped($0.name))\n\(lines($0.help))" }.joined()
    }

    private static func lines(_ lines: [String]) -> String {
        if lines.allSatisfy(\.isEmpty) { return "\\&\n" }
        // A line that begins with a blank keeps its shape.
        return lines.enumerated().map { index, line in
            let line = line.hasPrefix(" ") ? "\\&" + inline(String(line.drop { $0 == " " })) : escaped(line)
            return (index > 0 && lines[index].hasPrefix(" ") ? ".br\n" : "") + "\(line)\n"
        }.joined()
    }

    private static func sentence(_ text: String) -> String { escaped(text) + "." }

    /// Text at the beginning of a line, where dots and quotes would be commands.
    private static func escaped(_ text: String) -> String {
        let text = inline(text)
        return text.hasPrefix(".") || text.hasPrefix("'") ? "\\&" + text : text
    }

    private static func inline(_ text: String) -> String {
        var result = ""
        for character in text {
            switch character {
            case "\\": result += "\\e"
            case "-": result += "\\-"
            default: result.append(character)
            }
        }
        return result
    }
}
