import IOCore
import StorageCommands
import StrataBase
import TraceRuntime

/// `--trace [enable=]PATTERN[,events=FILE][,file=FILE]`, which every tool and every command of a tool takes.
///
/// A pattern that begins with `-` turns events off. `events` names a list of patterns, one on a line. `file` takes the output away from standard
/// error; a name that ends in `.json`, `.jsonl` or `.ndjson`, or `format=json`, asks for JSON lines.
package enum TraceOptions {
    static let help = [
        "trace what happens: [[enable=]<pattern>][,events=<file>][,file=<file>][,format=text|json]", "(-T help lists the events)",
    ]

    /// Does what the options say, in their order.
    /// - Parameter tool: the name in front of warnings.
    /// - Throws: a failure that names what is wrong; `nothingLeftToDo` when the list of events was asked for and has been printed.
    package static func apply(_ texts: [String], tool: String) throws(ToolFailure) {
        if texts.isEmpty { return }
        TraceCatalog.register()
        for text in texts { try apply(text, tool: tool) }
    }

    private static func apply(_ text: String, tool: String) throws(ToolFailure) {
        let list = OptionList(parsing: text, impliedKey: "enable")
        if list.asksForHelp || list["enable"] == "help" || list["enable"] == "?" {
            let lines = TraceRegistry.events.map { $0.isAvailable ? "\($0.name)\n" : "\($0.name) (not available)\n" }
            StandardStreams.print(lines.joined())
            throw .nothingLeftToDo
        }
        // The destination first: the events that are turned on behind it shall not begin elsewhere.
        let format = try list["format"].map(format)
        if let path = list["file"] {
            do throws(TraceOutputError) {
                try TraceOutput.write(toFile: path, format ?? TraceFormat(ofFile: path))
            } catch {
                throw ToolFailure("Error opening logfile \(error.path): \(BlockError.text(ofErrno: error.number))")
            }
        } else if let format {
            TraceOutput.writeToStandardError(format)
        }
        for element in list.elements {
            switch element.key {
            case "enable": if let pattern = element.value, !pattern.isEmpty { choose(pattern, source: tool) }
            case "events": try chooseAll(inFile: element.value ?? "", tool: tool)
            case "file", "format": break
            default: throw ToolFailure("Invalid parameter '\(element.key)'")
            }
        }
    }

    private static func format(_ name: String) throws(ToolFailure) -> TraceFormat {
        guard let format = TraceFormat(rawValue: name) else { throw ToolFailure("Invalid parameter 'format': '\(name)' is neither 'text' nor 'json'") }
        return format
    }

    /// - Parameter source: what stands in front of a warning.
    private static func choose(_ text: String, source: String) {
        let turnsOff = text.hasPrefix("-")
        let pattern = GlobPattern(turnsOff ? String(text.dropFirst()) : text)
        let events = TraceRegistry.events { pattern.matches($0) }
        if !pattern.isWild {
            if events.isEmpty { StandardStreams.printError("\(source): warning: trace event '\(pattern.text)' does not exist\n") }
            for event in events where !event.isAvailable {
                StandardStreams.printError("\(source): warning: trace event '\(event.name)' is not available\n")
            }
        }
        TraceRegistry.set(events, on: !turnsOff)
    }

    private static func chooseAll(inFile path: String, tool: String) throws(ToolFailure) {
        let bytes: [UInt8]
        do throws(BlockError) { bytes = try SmallFile.read(path, limit: 1 << 20) } catch { throw ToolFailure(nil, error) }
        let lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        for (index, line) in lines.enumerated() {
            func isBlank(_ byte: UInt8) -> Bool { byte <= UInt8(ascii: " ") }
            var pattern = line.drop(while: isBlank)
            while let last = pattern.last, isBlank(last) { pattern.removeLast() }
            if pattern.isEmpty || pattern.first == UInt8(ascii: "#") { continue }
            choose(String(decoding: pattern, as: UTF8.self), source: "\(tool):\(path):\(index + 1)")
        }
    }
}
