/// The options of one command: letters after one dash, as the C library's `getopt` reads them, mixed with operands in any order.
struct LetterOptions {
    /// The letters that were given, with their values; nil for letters that take none. In their order.
    private(set) var given: [(letter: Character, value: String?)] = []
    private(set) var operands: [String] = []

    /// - Parameters:
    ///   - letters: those that the command knows; one that takes a value is followed by a colon, as in `P:qs:`.
    ///   - command: the name in front of messages.
    /// - Throws: a failure with the C library's message; how the command is used is printed after it.
    init(_ arguments: [String], letters: String, command: String) throws(CommandFailure) {
        let known = Array(letters)
        var rest = arguments[...]
        while let argument = rest.popFirst() {
            if argument == "--" { break }
            guard argument.hasPrefix("-"), argument != "-" else {
                operands.append(argument)
                continue
            }
            var group = argument.dropFirst()
            while let letter = group.popFirst() {
                guard letter != ":", let place = known.firstIndex(of: letter) else {
                    throw .usage("\(command): invalid option -- '\(letter)'")
                }
                guard place + 1 < known.count, known[place + 1] == ":" else {
                    given.append((letter, nil))
                    continue
                }
                guard let value = group.isEmpty ? rest.popFirst() : String(group) else {
                    throw .usage("\(command): option requires an argument -- '\(letter)'")
                }
                given.append((letter, value))
                break
            }
        }
        operands += rest
    }

    func contains(_ letter: Character) -> Bool { given.contains { $0.letter == letter } }
    /// The value that counts when a letter is repeated: the last.
    func last(_ letter: Character) -> String? { given.last { $0.letter == letter }?.value }
}
