/// Reads a `trace-events` file: one declaration on a line, in the form that QEMU made the custom of the field.
///
///     # a comment
///     blk_read_begin(const char *backend, int64_t offset, size_t bytes) "backend %s offset %" PRId64 " bytes %zu"
///     disable blk_spin(int rounds) "rounds %d"
///
/// The first thing that is wrong ends the reading, with the file and the line.
package struct TraceParser {
    /// The field's limit.
    static let mostArguments = 10

    private let file: String
    private let line: Int
    private var rest: Substring.UnicodeScalarView

    /// - Parameter text: what the file says.
    /// - Parameter file: its name, for messages.
    package static func parse(_ text: String, file: String) throws(TraceSyntaxError) -> [TraceDeclaration] {
        var declarations: [TraceDeclaration] = []
        var lines: [String: Int] = [:]
        for (index, line) in text.unicodeScalars.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            var parser = TraceParser(file: file, line: index + 1, rest: line)
            guard let declaration = try parser.declaration() else { continue }
            if let earlier = lines.updateValue(index + 1, forKey: declaration.name) {
                throw parser.error("event '\(declaration.name)' is declared already, on line \(earlier)")
            }
            declarations.append(declaration)
        }
        return declarations
    }

    private init(file: String, line: Int, rest: Substring.UnicodeScalarView) {
        self.file = file
        self.line = line
        self.rest = rest
    }

    private func error(_ message: String) -> TraceSyntaxError { TraceSyntaxError(file: file, line: line, message: message) }

    private mutating func declaration() throws(TraceSyntaxError) -> TraceDeclaration? {
        skipBlanks()
        guard let first = rest.first, first != "#" else { return nil }
        var name = try identifier(for: "the name of an event")
        var isDisabled = false
        skipBlanks()
        while let next = rest.first, next != "(" {
            guard name == "disable" else {
                throw error(Self.isWordScalar(next) ? "unknown property '\(name)'" : "event '\(name)' lacks its arguments in parentheses")
            }
            if isDisabled { throw error("property 'disable' is repeated") }
            isDisabled = true
            name = try identifier(for: "the name of an event")
            skipBlanks()
        }
        if name == "disable" { throw error("expected the name of an event, found \(rest.first.map { "'\($0)'" } ?? "the end of the line")") }
        guard rest.popFirst() == "(" else { throw error("event '\(name)' lacks its arguments in parentheses") }
        let arguments = try arguments(of: name)
        let pieces = try format(of: name)
        try check(pieces, against: arguments, of: name)
        return TraceDeclaration(name: name, isDisabled: isDisabled, arguments: arguments, format: pieces, line: line)
    }

    // MARK: Arguments

    /// The list up to the closing parenthesis, which is consumed.
    private mutating func arguments(of event: String) throws(TraceSyntaxError) -> [TraceDeclaration.Argument] {
        guard let close = rest.firstIndex(of: ")") else { throw error("the arguments of event '\(event)' lack their ')'") }
        let list = rest[..<close]
        rest = rest[rest.index(after: close)...]
        let texts = list.split(separator: ",", omittingEmptySubsequences: false).map { Self.words(in: $0) }
        if texts.count == 1, texts[0].isEmpty || texts[0] == ["void"] { return [] }
        if texts.count > Self.mostArguments {
            throw error("event '\(event)' has \(texts.count) arguments; there may be \(Self.mostArguments)")
        }
        var arguments: [TraceDeclaration.Argument] = []
        for (index, words) in texts.enumerated() {
            guard let name = words.last else { throw error("argument \(index + 1) of event '\(event)' is empty") }
            let typeName = words.dropLast().joined(separator: " ")
            guard words.count > 1, Self.isIdentifier(name) else {
                throw error("argument '\(words.joined(separator: " "))' of event '\(event)' must be a type and a name")
            }
            guard let type = TraceType(typeName) else {
                throw error("argument '\(name)' of event '\(event)' has type '\(typeName)'; the types are: \(TraceType.allNames)")
            }
            if arguments.contains(where: { $0.name == name }) { throw error("event '\(event)' has two arguments '\(name)'") }
            arguments.append(.init(type: type, name: name))
        }
        return arguments
    }

    /// Words and stars.
    private static func words(in text: Substring.UnicodeScalarView) -> [String] {
        var words: [String] = []
        var word = ""
        func end() {
            if !word.isEmpty { words.append(word) }
            word = ""
        }
        for scalar in text {
            if isBlank(scalar) {
                end()
            } else if scalar == "*" {
                end()
                words.append("*")
            } else {
                word.unicodeScalars.append(scalar)
            }
        }
        end()
        return words
    }

    // MARK: The format

    /// String literals and the length macros of C between them, up to the end of the line.
    private mutating func format(of event: String) throws(TraceSyntaxError) -> [TraceFormatPiece] {
        var text: [Unicode.Scalar] = []
        skipBlanks()
        guard rest.first == "\"" else { throw error("event '\(event)' lacks its format string") }
        while let next = rest.first, next != "#" {
            if next == "\"" {
                try literal(&text, of: event)
            } else if Self.isWordScalar(next) {
                let macro = try identifier(for: "a macro")
                guard text.last.map({ "%0123456789-#".unicodeScalars.contains($0) }) == true, let letter = Self.letter(ofMacro: macro) else {
                    throw error("'\(macro)' in the format of event '\(event)' is no length macro behind a '%'")
                }
                text.append(letter)
            } else {
                throw error("unexpected '\(next)' after the format of event '\(event)'")
            }
            skipBlanks()
        }
        if text.last == "\n" { throw error("the format of event '\(event)' ends with a newline, which the output adds itself") }
        if text.contains("\n") { throw error("the format of event '\(event)' contains a newline") }
        return try pieces(text, of: event)
    }

    private mutating func literal(_ text: inout [Unicode.Scalar], of event: String) throws(TraceSyntaxError) {
        rest.removeFirst()
        while let next = rest.popFirst() {
            switch next {
            case "\"": return
            case "\\":
                switch rest.popFirst() {
                case "\"": text.append("\"")
                case "\\": text.append("\\")
                case "n": text.append("\n")
                case "t": text.append("\t")
                case let other?: throw error("unknown escape '\\\(other)' in the format of event '\(event)'")
                case nil: break
                }
            default: text.append(next)
            }
        }
        throw error("the format of event '\(event)' lacks its closing quote")
    }

    /// `PRId64`, `PRIx32` and so on stand for a conversion letter.
    private static func letter(ofMacro macro: String) -> Unicode.Scalar? {
        let scalars = Array(macro.unicodeScalars)
        guard macro.hasPrefix("PRI"), scalars.count > 3, ["8", "16", "32", "64", "PTR", "MAX"].contains(macro.dropFirst(4)),
            "diuxX".unicodeScalars.contains(scalars[3])
        else { return nil }
        return scalars[3]
    }

    private func pieces(_ text: [Unicode.Scalar], of event: String) throws(TraceSyntaxError) -> [TraceFormatPiece] {
        var pieces: [TraceFormatPiece] = []
        var literal = ""
        var rest = text[...]
        while let next = rest.popFirst() {
            guard next == "%" else {
                literal.unicodeScalars.append(next)
                continue
            }
            if rest.first == "%" {
                rest.removeFirst()
                literal.append("%")
                continue
            }
            if !literal.isEmpty { pieces.append(.text(literal)) }
            literal = ""
            pieces.append(.conversion(try conversion(&rest, of: event)))
        }
        if !literal.isEmpty { pieces.append(.text(literal)) }
        return pieces
    }

    private func conversion(_ rest: inout ArraySlice<Unicode.Scalar>, of event: String) throws(TraceSyntaxError) -> TraceConversion {
        var conversion = TraceConversion("d")
        var written = "%"
        func take() -> Unicode.Scalar? {
            guard let next = rest.popFirst() else { return nil }
            written.unicodeScalars.append(next)
            return next
        }
        while let flag = rest.first, "0-#".unicodeScalars.contains(flag) {
            _ = take()
            switch flag {
            case "0": conversion.isZeroPadded = true
            case "-": conversion.isLeftAligned = true
            default: conversion.hasPrefix = true
            }
        }
        while let digit = rest.first, let value = Int(String(digit)) {
            _ = take()
            conversion.width = min(conversion.width * 10 + value, 1000)
        }
        while let length = rest.first, "hlzjt".unicodeScalars.contains(length) { _ = take() }
        guard let letter = take(), "diuxXsp".unicodeScalars.contains(letter), conversion.width <= 200 else {
            throw error("'\(written)' in the format of event '\(event)' is none of the conversions %d %i %u %x %X %s %p %%")
        }
        conversion.letter = letter == "i" ? "d" : Character(letter)
        return conversion
    }

    private func check(_ pieces: [TraceFormatPiece], against arguments: [TraceDeclaration.Argument], of event: String) throws(TraceSyntaxError) {
        var conversions: [TraceConversion] = []
        for case .conversion(let conversion) in pieces { conversions.append(conversion) }
        guard conversions.count == arguments.count else {
            throw error("event '\(event)' has \(arguments.count) arguments, and its format names \(conversions.count)")
        }
        for (conversion, argument) in zip(conversions, arguments) where !conversion.fits(argument.type) {
            throw error("'%\(conversion.letter)' in the format of event '\(event)' does not fit the type of argument '\(argument.name)'")
        }
    }

    // MARK: Scalars

    private mutating func skipBlanks() {
        while let next = rest.first, Self.isBlank(next) { rest.removeFirst() }
    }

    private mutating func identifier(for what: String) throws(TraceSyntaxError) -> String {
        skipBlanks()
        var word = ""
        while let next = rest.first, Self.isWordScalar(next) {
            word.unicodeScalars.append(next)
            rest.removeFirst()
        }
        guard Self.isIdentifier(word) else {
            let found = word.isEmpty ? rest.first.map { "'\($0)'" } ?? "the end of the line" : "'\(word)'"
            throw error("expected \(what), found \(found)")
        }
        return word
    }

    private static func isBlank(_ scalar: Unicode.Scalar) -> Bool { scalar == " " || scalar == "\t" || scalar == "\r" }

    private static func isWordScalar(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar {
        case "a"..."z", "A"..."Z", "0"..."9", "_": true
        default: false
        }
    }

    private static func isIdentifier(_ word: String) -> Bool {
        guard let first = word.unicodeScalars.first, !("0"..."9").contains(first) else { return false }
        return word.unicodeScalars.allSatisfy(isWordScalar)
    }
}
