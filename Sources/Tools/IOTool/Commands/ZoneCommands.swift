import StrataBase

// Zoned devices are not supported: every command fails as it does on a device without zones.

extension IOCommand {
    static let zoneReport = zone("report", "zrp", "offset number", "list zones (no zoned devices here)")
    static let zoneOpen = zone("open", "zo", "offset len", "open zones (no zoned devices here)")
    static let zoneClose = zone("close", "zc", "offset len", "close zones (no zoned devices here)")
    static let zoneFinish = zone("finish", "zf", "offset len", "finish zones (no zoned devices here)")
    static let zoneReset = zone("reset", "zrs", "offset len", "reset zones (no zoned devices here)")
    static let zoneAppend = IOCommand(
        name: "zone_append", alias: "zap", arguments: "offset len [len..]", summary: "append to a zone (no zoned devices here)", count: 3...4
    ) { arguments, _ throws(CommandFailure) in
        for text in arguments where !text.hasPrefix("-") { _ = try ArgumentValues.bytes(text) }
        throw .failed("zone append", unsupported)
    }

    private static let unsupported = BlockError(.unsupported, "Zoned devices are not supported")

    private static func zone(_ verb: String, _ alias: String, _ arguments: String, _ summary: String) -> IOCommand {
        IOCommand(name: "zone_\(verb)", alias: alias, arguments: arguments, summary: summary, count: 2...2) { arguments, _ throws(CommandFailure) in
            for text in arguments { _ = try ArgumentValues.bytes(text) }
            throw .failed("zone \(verb)", unsupported)
        }
    }
}
