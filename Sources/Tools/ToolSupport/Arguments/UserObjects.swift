import QAPIRuntime

/// The objects of `--object`: accepted by every command, since scripts pass them everywhere.
package enum UserObjects {
    /// What may stand there. Secrets are accepted although no format of this version needs one.
    private static let types: Set<String> = ["secret", "tls-creds-x509", "tls-creds-psk", "tls-creds-anon", "authz-list", "authz-simple", "iothread", "throttle-group"]

    /// Checks definitions; nothing is created.
    /// - Throws: a failure that names what is wrong.
    package static func check(_ definitions: [String]) throws(ToolFailure) {
        for definition in definitions {
            do throws(QMPError) {
                let (value, _) = try KeyValueParser.parseArgument(definition, impliedKey: "qom-type")
                guard let type = value["qom-type"]?.string else { throw QMPError("Parameter 'qom-type' is missing") }
                guard types.contains(type) else { throw QMPError("Parameter 'qom-type' does not accept value '\(type)'") }
                guard value["id"]?.string != nil else { throw QMPError("Parameter 'id' is missing") }
            } catch {
                throw ToolFailure(error.message)
            }
        }
    }
}
