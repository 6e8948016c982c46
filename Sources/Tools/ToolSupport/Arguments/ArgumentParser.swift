/// Splits a command line as the C library's `getopt_long` does, because that is the grammar that scripts written for QEMU's tools rely on.
///
/// - Options and operands may be mixed; after `--` everything is an operand; a lone `-` is an operand.
/// - Letters may be grouped (`-qU`), and a value may follow its letter directly (`-fqcow2`) or be the next argument.
/// - A long option takes its value after `=` or as the next argument, and may be shortened while it stays unambiguous among QEMU's options.
/// - Every command takes `--trace` (see `TraceOptions`), and `-T` where it means nothing else. It may not be shortened, so that it makes no
///   shortened option of a command ambiguous.
package struct ArgumentParser<Key: OptionKey>: Sendable {
    private let options: [OptionDeclaration<Key>]
    /// Whether the first operand ends the options: a tool whose first operand is a command leaves the rest to it.
    private let stopsAtFirstOperand: Bool
    /// Whether `-1` right behind the first operand is an operand (see `CommandDeclaration`).
    private let hasNegativeOperand: Bool

    package init(_ options: [OptionDeclaration<Key>], stopsAtFirstOperand: Bool = false, hasNegativeOperand: Bool = false) {
        self.options = options
        self.stopsAtFirstOperand = stopsAtFirstOperand
        self.hasNegativeOperand = hasNegativeOperand
    }

    /// Reading ends at a call for help: whatever follows it is not looked at.
    /// - Parameter arguments: without the program's name.
    /// - Throws: a failure whose message is the C library's, without the program's name in front.
    package func parse(_ arguments: [String]) throws(ArgumentError) -> ParsedArguments<Key> {
        var parsed = ParsedArguments<Key>()
        var rest = arguments[...]
        while !parsed.contains(.help), let argument = rest.popFirst() {
            if argument == "--" {
                break
            } else if argument == "--trace" || argument.hasPrefix("--trace="), !options.contains(where: { $0.long == "trace" }) {
                guard let value = argument == "--trace" ? rest.popFirst() : String(argument.dropFirst(8)) else {
                    throw ArgumentError("option '--trace' requires an argument")
                }
                parsed.traces.append(value)
            } else if argument.hasPrefix("--") {
                parsed.occurrences.append(try longOption(argument.dropFirst(2), &rest))
            } else if argument.hasPrefix("-"), argument != "-" {
                try shortOptions(argument.dropFirst(), &rest, &parsed)
            } else {
                parsed.operands.append(argument)
                if stopsAtFirstOperand { break }
                if hasNegativeOperand, parsed.operands.count == 1, let next = rest.first, next.first == "-", next.dropFirst().first?.isASCIIDigit ?? false {
                    parsed.operands.append(rest.removeFirst())
                }
            }
        }
        parsed.operands += rest
        return parsed
    }

    private func longOption(
        _ text: Substring, _ rest: inout ArraySlice<String>
    ) throws(ArgumentError) -> ParsedArguments<Key>.Occurrence {
        let equals = text.firstIndex(of: "=")
        let name = text[..<(equals ?? text.endIndex)]
        let option = try match(name, written: text)
        let long = option.long ?? String(name)
        if let equals {
            guard option.takesValue || option.hasOptionalValue else { throw ArgumentError("option '--\(long)' doesn't allow an argument") }
            return .init(key: option.key, value: String(text[text.index(after: equals)...]))
        }
        guard option.takesValue else { return .init(key: option.key, value: nil) }
        guard let value = rest.popFirst() else { throw ArgumentError("option '--\(long)' requires an argument") }
        return .init(key: option.key, value: value)
    }

    /// The option with this name, or the only one that starts with it. QEMU's go before ours.
    private func match(_ name: Substring, written text: Substring) throws(ArgumentError) -> OptionDeclaration<Key> {
        var candidates: [OptionDeclaration<Key>] = []
        for option in options {
            guard let long = option.long, long.hasPrefix(name) else { continue }
            if long.utf8.count == name.utf8.count { return option }
            candidates.append(option)
        }
        if candidates.contains(where: { !$0.isOwnWord }) { candidates.removeAll(where: \.isOwnWord) }
        guard let first = candidates.first else { throw ArgumentError("unrecognized option '--\(text)'") }
        // Two spellings of one option are no ambiguity.
        if candidates.allSatisfy({ $0.key == first.key && $0.takesValue == first.takesValue }) { return first }
        let possibilities = candidates.compactMap(\.long).map { " '--\($0)'" }.joined()
        throw ArgumentError("option '--\(text)' is ambiguous; possibilities:\(possibilities)")
    }

    private func shortOptions(
        _ letters: Substring, _ rest: inout ArraySlice<String>, _ parsed: inout ParsedArguments<Key>
    ) throws(ArgumentError) {
        var letters = letters
        while let letter = letters.popFirst() {
            guard let option = options.first(where: { $0.short == letter }) else {
                if letter == "T" {
                    guard let value = letters.isEmpty ? rest.popFirst() : String(letters) else {
                        throw ArgumentError("option requires an argument -- 'T'")
                    }
                    parsed.traces.append(value)
                    return
                }
                throw ArgumentError("invalid option -- '\(letter)'")
            }
            guard option.takesValue else {
                parsed.occurrences.append(.init(key: option.key, value: nil))
                continue
            }
            if !letters.isEmpty {
                parsed.occurrences.append(.init(key: option.key, value: String(letters)))
                return
            }
            guard let value = rest.popFirst() else { throw ArgumentError("option requires an argument -- '\(letter)'") }
            parsed.occurrences.append(.init(key: option.key, value: value))
        }
    }
}

/// A command line that does not fit its declaration.
package struct ArgumentError: Error, Hashable, Sendable {
    /// One line, without the program's name.
    package let message: String
    package init(_ message: String) { self.message = message }
}

/// A command line, split.
package struct ParsedArguments<Key: Sendable>: Sendable {
    /// One option as it was given.
    package struct Occurrence: Sendable {
        package let key: Key
        /// Nil for options that take no value, and for one that need not have one and has none.
        package let value: String?
    }

    /// In the order they were given; what a repetition means is the command's business.
    package var occurrences: [Occurrence] = []
    package var operands: [String] = []
    /// The values of `--trace`, in the order they were given.
    package var traces: [String] = []
}

extension ParsedArguments where Key: OptionKey {
    package func contains(_ key: Key) -> Bool { occurrences.contains { $0.key == key } }
    /// The value that counts when an option is repeated: the last.
    package func last(_ key: Key) -> String? { occurrences.last { $0.key == key }?.value }
    package func all(_ key: Key) -> [String] { occurrences.compactMap { $0.key == key ? $0.value : nil } }
}

extension Character {
    fileprivate var isASCIIDigit: Bool { self >= "0" && self <= "9" }
}
