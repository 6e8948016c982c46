public import QAPIRuntime

// Answers that follow from the schema alone.

extension ControlCommands {
    /// The monitor answers this command itself while it negotiates; whoever gets here is late.
    public func qmpCapabilities(_ arguments: QmpCapabilitiesArguments) async throws {
        throw QMPError("Capabilities negotiation is already complete, command ignored", class: .commandNotFound)
    }

    public func queryVersion() async throws -> VersionInfo { .current }

    public func queryCommands() async throws -> [CommandInfo] {
        StorageSchemaTable.commandNames.map { CommandInfo(name: $0) }
    }
}

extension IntrospectCommands {
    public func queryQmpSchema(_ arguments: JSONObject) async throws -> JSONValue {
        _ = try QAPIEmpty(decoding: .object(arguments))
        return CompatPolicy.ofRunningCommand.trimming(StorageSchemaTable.introspection)
    }
}

extension VersionInfo {
    /// The interface is that of QEMU 10.0.2, which is what clients ask this for; the program is its own.
    public static var current: VersionInfo {
        VersionInfo(qemu: VersionTriple(major: 10, minor: 0, micro: 2), package: "strata 0.1.0")
    }
}
