import NBDProtocol
import QAPIRuntime

/// What `-L` prints. Scripts read the text: its words and blanks are qemu-nbd's.
enum ExportList {
    static func text(_ exports: [ListedExport]) -> String {
        var text = "exports available: \(exports.count)\n"
        for export in exports {
            text += " export: '\(export.name)'\n"
            if let description = export.description, !description.isEmpty { text += "  description: \(description)\n" }
            if let byteCount = export.byteCount {
                let flags = export.flags
                let names = flagNames.filter { flags.contains($0.flag) }.map { "\($0.name) " }.joined()
                text += "  size:  \(byteCount)\n  flags: 0x\(String(flags.rawValue, radix: 16)) ( \(names))\n"
            }
            if let sizes = export.blockSizes {
                text += "  min block: \(sizes.minimum)\n  opt block: \(sizes.preferred)\n  max block: \(sizes.maximum)\n"
            }
            text += "  transaction size: \(export.hasExtendedHeaders ? 64 : 32)-bit\n"
            if !export.metaContexts.isEmpty {
                text += "  available meta contexts: \(export.metaContexts.count)\n"
                for context in export.metaContexts { text += "   \(context)\n" }
            }
        }
        return text
    }

    /// The same for programs.
    static func json(_ exports: [ListedExport]) -> String {
        let values = exports.map { export -> JSONValue in
            var object = JSONObject()
            object["name"] = .string(export.name)
            if let description = export.description { object["description"] = .string(description) }
            if let byteCount = export.byteCount {
                object["size"] = .integer(byteCount)
                object["flags"] = .array(flagNames.filter { export.flags.contains($0.flag) }.map { .string($0.name) })
            }
            if let sizes = export.blockSizes {
                object["min-block"] = .integer(sizes.minimum)
                object["opt-block"] = .integer(sizes.preferred)
                object["max-block"] = .integer(sizes.maximum)
            }
            object["transaction-size"] = .integer(export.hasExtendedHeaders ? 64 : 32)
            object["meta-contexts"] = .array(export.metaContexts.map { .string($0) })
            return .object(object)
        }
        return JSONValue.array(values).text(pretty: true) + "\n"
    }

    private static let flagNames: [(flag: NBDTransmissionFlags, name: String)] = [
        (.readOnly, "readonly"), (.sendFlush, "flush"), (.sendFUA, "fua"), (.rotational, "rotational"), (.sendTrim, "trim"), (.sendWriteZeroes, "zeroes"),
        (.sendDF, "df"), (.canMultiConn, "multi"), (.sendResize, "resize"), (.sendCache, "cache"), (.sendFastZero, "fast-zero"),
        (.blockStatusPayload, "block-status-payload"),
    ]
}
