import CharacterDevices
import QAPIRuntime
import StorageSchema
import StrataBase
import ToolSupport

/// What `--chardev` asks for, in any of its forms: the short options that QEMU's programs have always had (`socket,id=c,path=s,server=on`), or
/// the arguments of `chardev-add` as JSON or dotted keys (`id=c,backend.type=null`).
struct ChardevOptions: Sendable, Hashable {
    let id: String
    let backend: ChardevBackend

    /// - Throws: what is wrong, or not supported, by name. Nothing that would change the meaning is ignored.
    init(parsing text: String, goesToBackground: Bool) throws(QMPError) {
        if text.hasPrefix("{") || text.hasPrefix("backend.") || text.contains(",backend.") {
            let (value, mode) = try KeyValueParser.parseArgument(text)
            let arguments = try ChardevAddArguments(decoding: value, mode: mode)
            id = arguments.id
            backend = arguments.backend
        } else {
            let list = OptionList(parsing: text, impliedKey: "backend")
            guard let id = list["id"] else { throw QMPError("chardev: no id specified") }
            guard let kind = list["backend"] else { throw QMPError("chardev: \"\(id)\" missing backend") }
            guard Self.isIdentifier(id) else { throw QMPError("Parameter 'id' expects an identifier") }
            self.id = id
            backend = ChardevBackend(try LegacyChardev(list).branch(kind))
        }
        if goesToBackground, case .stdio = backend.branch { throw QMPError("cannot use stdio with -daemonize") }
    }

    private static func isIdentifier(_ id: String) -> Bool {
        guard let first = id.utf8.first, first | 0x20 >= UInt8(ascii: "a"), first | 0x20 <= UInt8(ascii: "z") else { return false }
        return id.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
            case UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"): true
            default: false
            }
        }
    }

    /// The same with the names of files as they are seen from the root, for a daemon that leaves its directory.
    func rooted() -> ChardevOptions {
        var copy = self
        copy.rootNames()
        return copy
    }

    private mutating func rootNames() {
        func absolute(_ path: String?) -> String? { path.map { HostPath.absolute($0) } }
        var branch = backend.branch
        switch branch {
        case .socket(var wrapper):
            if case .unix(var unix) = wrapper.data.addr.branch, unix.data.abstract != true {
                unix.data.path = HostPath.absolute(unix.data.path)
                wrapper.data.addr.branch = .unix(unix)
            }
            branch = .socket(wrapper)
        case .pty(var wrapper):
            wrapper.data.path = absolute(wrapper.data.path)
            branch = .pty(wrapper)
        // Everything else is opened before the directory changes, and has nothing to remove at the end.
        case .file, .pipe, .null, .stdio, .ringbuf: break
        }
        self = ChardevOptions(id: id, backend: ChardevBackend(branch))
    }

    private init(id: String, backend: ChardevBackend) {
        self.id = id
        self.backend = backend
    }
}
