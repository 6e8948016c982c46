import BlockGraph
import IOCore
import StrataBase
import ToolSupport

/// The command line, checked as far as that is possible without opening anything.
struct NBDToolPlan: Sendable {
    enum Action: Sendable, Hashable {
        case serve
        case list
        case connect(device: String)
        case disconnect(device: String)
    }

    /// What to listen on, when the process was not started with a socket.
    enum Address: Sendable, Hashable {
        case unix(path: String)
        case tcp(host: String, port: String)

        var hostAddress: HostAddress {
            switch self {
            case .unix(let path): .unix(path: path)
            case .tcp(let host, let port): .tcp(host: host, port: port)
            }
        }
    }

    var action = Action.serve
    var image: String?
    var isOptions = false
    var format: String?
    var settings = ImageSettings()
    var isSnapshot = false
    var detectZeroes: String?
    /// Which snapshot to serve: the first of these that there is.
    var snapshots: [SnapshotSelector] = []
    var offset = 0
    private var host: String?
    private var port: String?
    private var socketPath: String?
    /// Nil: any number of clients.
    var shared: Int? = 1
    var isPersistent = false
    var isVerbose = false
    var exportName = ""
    var description: String?
    /// Nil: clients may take any time.
    var handshakeLimit: Duration? = .seconds(10)
    var hasAllocationDepth = false
    var bitmaps: [String] = []
    var printsJSON = false
    var tlsCreds: String?
    var tlsAuthz: String?
    var tlsHostname: String?
    var objects: [String] = []
    var goesToBackground = false
    var pidFile: String?

    var address: Address {
        if let socketPath { return .unix(path: socketPath) }
        return .tcp(host: host ?? "0.0.0.0", port: port ?? "10809")
    }

    /// Whether the options say where to listen.
    var namesAddress: Bool { host != nil || port != nil || socketPath != nil }

    init(_ arguments: ParsedArguments<NBDKey>, _ context: CommandContext) throws(ToolFailure) {
        var hasCache = false
        settings.isReadOnly = false
        settings.unmaps = false
        for option in arguments.occurrences {
            let value = option.value ?? ""
            switch option.key {
            case .help, .version: break
            case .verbose: isVerbose = true
            case .port: port = value
            case .bind: host = value
            case .socket:
                guard value.hasPrefix("/") else { throw ToolFailure("socket path must be absolute") }
                socketPath = value
            case .shared:
                guard let number = NumberArgument.inCNotation(value), number <= Int(Int32.max) else { throw ToolFailure("Invalid shared device number '\(value)'") }
                shared = number == 0 ? nil : number
            case .persistent: isPersistent = true
            case .exportName:
                exportName = value
                guard value.utf8.count <= 4096 else { throw ToolFailure("export name '\(value)' too long") }
            case .description:
                description = value
                guard value.utf8.count <= 4096 else { throw ToolFailure("export description '\(value)' too long") }
            case .handshakeLimit:
                guard let number = NumberArgument.inCNotation(value), let seconds = UInt32(exactly: number) else { throw ToolFailure("Invalid handshake limit '\(value)'") }
                handshakeLimit = seconds == 0 ? nil : .seconds(Int64(seconds))
            case .offset:
                guard let bytes = NumberArgument.inCNotation(value) else { throw ToolFailure("Invalid offset '\(value)'") }
                offset = bytes
            case .allocationDepth: hasAllocationDepth = true
            case .bitmap: bitmaps.append(value)
            case .list: action = .list
            case .json: printsJSON = true
            case .object:
                try ObjectHelp.answer(value)
                objects.append(value)
            case .tlsCreds: tlsCreds = value
            case .tlsAuthz: tlsAuthz = value
            case .tlsHostname: tlsHostname = value
            case .fork: goesToBackground = true
            case .pidFile: pidFile = value
            case .selinuxLabel:
                // A label that cannot be set must not be taken for one that was.
                throw ToolFailure("Cannot set SELinux socket create context to \(value): this host has no SELinux")
            case .connect: action = .connect(device: value)
            case .disconnect: action = .disconnect(device: arguments.operands.first ?? "")
            case .format: format = value
            case .readOnly: settings.isReadOnly = true
            case .snapshot: isSnapshot = true
            case .loadSnapshot:
                snapshots = try Self.snapshots(value)
                settings.isReadOnly = true
            case .noCache, .cache:
                if hasCache { throw ToolFailure("-n and --cache can only be specified once") }
                hasCache = true
                guard let mode = CacheMode(option.key == .noCache ? "none" : value) else { throw ToolFailure("Invalid cache mode `\(value)'") }
                settings.cache = mode
            case .aio:
                guard settings.aio == nil else { throw ToolFailure("--aio can only be specified once") }
                guard ["threads", "native", "io_uring"].contains(value) else { throw ToolFailure("Invalid aio mode '\(value)'") }
                settings.aio = value
            case .discard:
                guard ["off", "ignore", "on", "unmap"].contains(value) else { throw ToolFailure("Invalid discard mode `\(value)'") }
                settings.unmaps = value == "on" || value == "unmap"
            case .detectZeroes:
                guard ["off", "on", "unmap"].contains(value) else {
                    throw ToolFailure("Failed to parse detect_zeroes mode: invalid parameter value: \(value)")
                }
                detectZeroes = value
            case .imageOptions: isOptions = true
            }
        }
        try check(arguments, context)
    }

    private mutating func check(_ arguments: ParsedArguments<NBDKey>, _ context: CommandContext) throws(ToolFailure) {
        if tlsCreds == nil {
            if tlsAuthz != nil { throw ToolFailure("--tls-authz is not permitted without --tls-creds") }
            if tlsHostname != nil { throw ToolFailure("--tls-hostname is not permitted without --tls-creds") }
        }
        switch action {
        case .list:
            if !arguments.operands.isEmpty { throw ToolFailure("List mode is incompatible with a file name") }
            if goesToBackground { throw ToolFailure("List mode is incompatible with forking") }
            if pidFile != nil { throw ToolFailure("List mode is incompatible with a process id file") }
            if tlsAuthz != nil { throw ToolFailure("TLS authorization is incompatible with export list") }
            return
        case .connect:
            if tlsCreds != nil { throw ToolFailure("TLS is not supported with a host device") }
        case .serve:
            if tlsHostname != nil { throw ToolFailure("TLS hostname is only supported with list mode") }
        case .disconnect: break
        }
        guard arguments.operands.count == 1 else {
            throw context.usageFailure("Invalid number of arguments")
        }
        image = arguments.operands.first
        if isOptions, format != nil { throw ToolFailure("--image-opts and -f are mutually exclusive") }
        if detectZeroes == "unmap", !settings.unmaps {
            throw ToolFailure("setting detect-zeroes to unmap is not allowed without setting discard operation to unmap")
        }
    }

    /// `snapshot.id=ID,snapshot.name=NAME`, or an id or name.
    private static func snapshots(_ text: String) throws(ToolFailure) -> [SnapshotSelector] {
        guard text.hasPrefix("snapshot.") else { return [SnapshotSelector(id: text), SnapshotSelector(name: text)] }
        var selector = SnapshotSelector()
        for element in OptionList(parsing: text).elements {
            switch element.key {
            case "snapshot.id": selector.id = element.value
            case "snapshot.name": selector.name = element.value
            default: throw ToolFailure("Invalid parameter '\(element.key)'", advice: ["Failed in parsing snapshot param `\(text)'"])
            }
        }
        return [selector]
    }
}
