import QAPIRuntime
import StorageSchema
import StrataBase
import ToolSupport

/// What a command line asks for, understood before anything of it is done: the steps in the order in which they were given.
struct DaemonPlan: Sendable {
    enum Action: Sendable {
        case addDescriptor(InheritedDescriptor)
        case addNode(BlockdevOptions)
        case addChardev(ChardevOptions)
        case addExport(BlockExportOptions)
        case addMonitor(MonitorOptions)
        case startNBDServer(NbdServerOptions)
        case addObject(ObjectOptions)
    }

    struct Step: Sendable {
        let action: Action
        /// The option as it was given, for messages: `--blockdev driver=…`.
        let source: String
    }

    private(set) var steps: [Step] = []
    private(set) var pidFile: String?
    private(set) var goesToBackground = false
    /// Holds for all monitors, wherever it stands on the command line.
    private(set) var compat = CompatPolicy()
    /// Set when the command line asks only what objects there are.
    private(set) var objectHelp: String?

    /// - Throws: a failure that names the option.
    init(_ parsed: ParsedArguments<DaemonKey>) throws(ToolFailure) {
        goesToBackground = parsed.contains(.daemonize)
        for occurrence in parsed.occurrences {
            let text = occurrence.value ?? ""
            switch occurrence.key {
            case .help, .version, .daemonize: break
            case .compat: compat = try Self.naming("--compat \(text)") { () throws(QMPError) in try CompatOption.parse(text) }
            case .pidfile:
                // After going to the background the directory is another one.
                pidFile = goesToBackground ? HostPath.absolute(text) : text
            case .object where ObjectHelp.isWanted(text):
                objectHelp = ObjectHelp.text(for: text)
                return
            default: try add(occurrence.key, text)
            }
        }
    }

    private mutating func add(_ key: DaemonKey, _ text: String) throws(ToolFailure) {
        guard let name = daemonDeclaration.options.first(where: { $0.key == key })?.long else { return }
        let source = "--\(name) \(key == .object ? Self.withoutSecret(text) : text)"
        let action = try Self.naming(source) { () throws(QMPError) -> Action? in
            switch key {
            case .addFd: .addDescriptor(try InheritedDescriptor(parsing: text))
            case .blockdev: .addNode(try Self.decode(text, impliedKey: "driver"))
            case .chardev: .addChardev(try chardev(text))
            case .export: .addExport(try Self.decode(text, impliedKey: "type"))
            case .monitor: .addMonitor(try Self.monitor(text))
            case .nbdServer: .startNBDServer(rooted(try Self.decode(text, impliedKey: nil)))
            case .object: .addObject(try Self.decode(text, impliedKey: "qom-type"))
            case .help, .version, .compat, .daemonize, .pidfile: nil
            }
        }
        if let action { steps.append(Step(action: action, source: source)) }
    }

    /// A definition as messages repeat it: they go to logs, and what a secret holds does not.
    private static func withoutSecret(_ text: String) -> String {
        guard text.contains("data") else { return text }
        if text.hasPrefix("{"), (try? JSONValue(parsing: text)) == nil { return "{...}" }
        return OptionList(parsing: text).elements.map { element in
            guard let value = element.value else { return element.key }
            return "\(element.key)=\(element.key == "data" ? "..." : OptionList.escaped(value))"
        }.joined(separator: ",")
    }

    private static func decode<Value: QAPIValue>(_ text: String, impliedKey: String?) throws(QMPError) -> Value {
        let (value, mode) = try KeyValueParser.parseArgument(text, impliedKey: impliedKey)
        return try Value(decoding: value, mode: mode)
    }

    private static func monitor(_ text: String) throws(QMPError) -> MonitorOptions {
        let options: MonitorOptions = try decode(text, impliedKey: "chardev")
        if options.mode == .readline { throw QMPError("Only QMP is supported: mode=control") }
        return options
    }

    private func chardev(_ text: String) throws(QMPError) -> ChardevOptions {
        let options = try ChardevOptions(parsing: text, goesToBackground: goesToBackground)
        return goesToBackground ? options.rooted() : options
    }

    /// The socket of the server is removed at the end, when the directory may be another one.
    private func rooted(_ options: NbdServerOptions) -> NbdServerOptions {
        guard goesToBackground, case .unix(var unix) = options.addr.branch else { return options }
        var options = options
        unix.path = HostPath.absolute(unix.path)
        options.addr.branch = .unix(unix)
        return options
    }

    /// Puts the option in front of what is wrong with it.
    private static func naming<Result>(_ source: String, _ body: () throws(QMPError) -> Result) throws(ToolFailure) -> Result {
        do throws(QMPError) { return try body() } catch { throw ToolFailure("\(source): \(error.message)") }
    }
}
