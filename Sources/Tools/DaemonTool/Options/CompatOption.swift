import QAPIRuntime

/// `--compat deprecated-input=reject,deprecated-output=hide`: what becomes of the parts of the interface that will go away or may change.
enum CompatOption {
    /// - Throws: what is wrong, in the words of any other option.
    static func parse(_ text: String) throws(QMPError) -> CompatPolicy {
        let (value, mode) = try KeyValueParser.parseArgument(text)
        var decoder = try ObjectDecoder(value, DecodingContext(mode))
        var policy = CompatPolicy()
        if let word: String = try decoder.optional("deprecated-input") { policy.deprecatedInput = try input(word, "deprecated-input") }
        if let word: String = try decoder.optional("deprecated-output") { policy.deprecatedOutput = try output(word, "deprecated-output") }
        if let word: String = try decoder.optional("unstable-input") { policy.unstableInput = try input(word, "unstable-input") }
        if let word: String = try decoder.optional("unstable-output") { policy.unstableOutput = try output(word, "unstable-output") }
        try decoder.finish()
        return policy
    }

    private static func input(_ word: String, _ name: String) throws(QMPError) -> CompatPolicy.Input {
        guard let value = CompatPolicy.Input(rawValue: word) else { throw QMPError("Parameter '\(name)' does not accept value '\(word)'") }
        return value
    }

    private static func output(_ word: String, _ name: String) throws(QMPError) -> CompatPolicy.Output {
        guard let value = CompatPolicy.Output(rawValue: word) else { throw QMPError("Parameter '\(name)' does not accept value '\(word)'") }
        return value
    }
}
