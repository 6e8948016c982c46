package import StrataBase

/// The words that the program was called with.
package enum ProgramArguments {
    /// - Returns: the program's name and what follows it, as the system passes them; may be empty.
    /// - Throws: `.invalidArgument` for a word that is not UTF-8: with something else in the place of its bytes it would name another file.
    package static func read() throws(BlockError) -> [String] {
        var words: [String] = []
        for index in 0..<Int(CommandLine.argc) {
            // SAFETY: the system passes `argc` pointers to NUL-terminated strings, which live as long as the process.
            guard let start = unsafe CommandLine.unsafeArgv[index] else { break }
            guard let word = unsafe String(validatingCString: start) else {
                throw BlockError(
                    .invalidArgument, "Argument \(index) is not UTF-8, as names of files and everything else have to be: '\(unsafe String(cString: start))'")
            }
            words.append(word)
        }
        return words
    }
}
