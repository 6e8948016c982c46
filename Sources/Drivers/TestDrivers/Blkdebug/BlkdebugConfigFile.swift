import StorageSchema
import StrataBase

/// A file of blkdebug rules: the form of QEMU's configuration files, `[group]` or `[group "id"]` and then lines `key = "value"`. Lines that begin
/// with `#` say nothing. The refusals have the words of QEMU 10.0.2.
struct BlkdebugConfigFile {
    private(set) var injections: [BlkdebugInjectErrorOptions] = []
    private(set) var changes: [BlkdebugSetStateOptions] = []

    /// A file of rules is short; this is no place to read a disk.
    private static let sizeLimit = 1 << 20

    init(reading path: String) throws(BlockError) {
        let bytes: [UInt8]
        do throws(BlockError) { bytes = try SmallFile.read(path, limit: Self.sizeLimit) } catch {
            if error.code == .tooLarge { throw error.during("Could not read blkdebug config file") }
            throw BlockError(errno: error.errno, "Could not read blkdebug config file")
        }
        try self.init(parsing: String(decoding: bytes, as: UTF8.self), path: path)
    }

    /// - Parameter path: for messages.
    init(parsing text: String, path: String) throws(BlockError) {
        var group: String?
        var members: [(key: String, value: String)] = []
        // By bytes: the two that end a line on Windows are one character.
        for (index, line) in text.utf8.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated() {
            let line = Substring(line).trimmed
            if line.isEmpty || line.hasPrefix("#") { continue }
            if line.hasPrefix("[") {
                if let group { try add(group, members) }
                group = try Self.groupName(line, path, index + 1)
                members = []
            } else {
                guard group != nil else { throw BlockError(.invalidArgument, "no group defined") }
                members.append(try Self.member(line, path, index + 1))
            }
        }
        if let group { try add(group, members) }
    }

    private static func malformed(_ path: String, _ line: Int) -> BlockError {
        BlockError(.invalidArgument, "\(path):\(line): parse error")
    }

    private static func groupName(_ line: Substring, _ path: String, _ number: Int) throws(BlockError) -> String {
        guard line.hasSuffix("]") else { throw malformed(path, number) }
        let inside = line.dropFirst().dropLast().trimmed
        let name = inside.prefix { $0 != " " && $0 != "\t" }
        let id = inside.dropFirst(name.count).trimmed
        guard id.isEmpty || (id.count >= 2 && id.hasPrefix("\"") && id.hasSuffix("\"")) else { throw malformed(path, number) }
        guard name == "inject-error" || name == "set-state" else { throw BlockError(.invalidArgument, "There is no option group '\(name)'") }
        return String(name)
    }

    private static func member(_ line: Substring, _ path: String, _ number: Int) throws(BlockError) -> (key: String, value: String) {
        guard let equals = line.firstIndex(of: "=") else { throw malformed(path, number) }
        let key = line[..<equals].trimmed
        let value = line[line.index(after: equals)...].trimmed
        guard !key.isEmpty, value.count >= 2, value.hasPrefix("\""), value.hasSuffix("\"") else { throw malformed(path, number) }
        return (String(key), String(value.dropFirst().dropLast()))
    }

    private mutating func add(_ group: String, _ members: [(key: String, value: String)]) throws(BlockError) {
        let isInjection = group == "inject-error"
        let known: Set<String> = isInjection ? ["event", "state", "iotype", "errno", "sector", "once", "immediately"] : ["event", "state", "new_state"]
        var values: [String: String] = [:]
        for (key, value) in members {
            guard known.contains(key) else { throw BlockError(.invalidArgument, "Invalid parameter '\(key)'") }
            values[key] = value
        }
        // A number and a switch are looked at before the event that nobody may have named.
        let state = try Self.number(values, "state")
        let errno = try Self.number(values, "errno")
        let sector = try Self.number(values, "sector")
        let newState = try Self.number(values, "new_state")
        let once = try Self.flag(values, "once")
        let immediately = try Self.flag(values, "immediately")
        guard let eventName = values["event"] else { throw BlockError(.invalidArgument, "Missing event name for rule") }
        guard let event = BlkdebugEvent(rawValue: eventName) else { throw BlockError(.invalidArgument, "invalid parameter value: \(eventName)") }
        guard isInjection else {
            changes.append(BlkdebugSetStateOptions(event: event, state: state, newState: newState ?? 0))
            return
        }
        var kind: BlkdebugIOType?
        if let name = values["iotype"] {
            kind = BlkdebugIOType(rawValue: name)
            if kind == nil { throw BlockError(.invalidArgument, "invalid parameter value: \(name)") }
        }
        injections.append(
            BlkdebugInjectErrorOptions(event: event, state: state, iotype: kind, errno: errno, sector: sector, once: once, immediately: immediately))
    }

    private static func number(_ values: [String: String], _ key: String) throws(BlockError) -> Int? {
        guard let text = values[key] else { return nil }
        guard let number = Int(text) else { throw BlockError(.invalidArgument, "Parameter '\(key)' expects a number") }
        return number
    }

    private static func flag(_ values: [String: String], _ key: String) throws(BlockError) -> Bool? {
        switch values[key] {
        case nil: return nil
        case "on", "yes", "true", "y": return true
        case "off", "no", "false", "n": return false
        default: throw BlockError(.invalidArgument, "Parameter '\(key)' expects 'on' or 'off'")
        }
    }
}

extension Substring {
    /// Without blanks at either end.
    fileprivate var trimmed: Substring {
        let isBlank: (Character) -> Bool = { $0 == " " || $0 == "\t" || $0 == "\r" }
        let rest = drop(while: isBlank)
        guard let last = rest.lastIndex(where: { !isBlank($0) }) else { return "" }
        return rest[...last]
    }
}
