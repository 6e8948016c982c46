import ToolSupport

enum NBDKey: OptionKey {
    case help, version, verbose
    case port, bind, socket, shared, persistent, exportName, description, handshakeLimit
    case offset, allocationDepth, bitmap
    case list, json, object, tlsCreds, tlsAuthz, tlsHostname, fork, pidFile, selinuxLabel
    case connect, disconnect
    case format, readOnly, snapshot, loadSnapshot, noCache, cache, aio, discard, detectZeroes, imageOptions
}

let nbdDeclaration = CommandDeclaration<NBDKey>(
    "nbd", summary: "Serve a disk image over NBD", usage: ["[OPTIONS] FILE", "-L [OPTIONS]", "-c DEVICE [OPTIONS] FILE", "-d DEVICE"],
    options: [
        .init(.version, "V", "version", help: "display version info and exit"),
        .init(.port, "p", "port", value: "PORT", help: "TCP port to listen on (default: 10809)"),
        .init(.bind, "b", "bind", value: "HOST", help: "address to listen on (default: 0.0.0.0)"),
        .init(.socket, "k", "socket", value: "PATH", help: "listen on a unix socket of this absolute path instead"),
        .init(.shared, "e", "shared", value: "NUM", help: "clients at a time; 0 for any number (default: 1)"),
        .init(.persistent, "t", "persistent", help: "go on when the last client has left"),
        .init(.verbose, "v", "verbose", help: "say what happens"),
        .init(.exportName, "x", "export-name", value: "NAME", help: "the export's name (default: empty)"),
        .init(.description, "D", "description", value: "TEXT", help: "the export's description for people"),
        .init(.handshakeLimit, nil, "handshake-limit", value: "SECONDS", help: "time in which a client must choose an export; 0 for any (default: 10)"),
        .init(.offset, "o", "offset", value: "BYTES", help: "leave out the beginning of the image"),
        .init(.allocationDepth, "A", "allocation-depth", help: "tell clients which layer of a chain holds the data"),
        .init(.bitmap, "B", "bitmap", value: "NAME", help: "tell clients what a persistent bitmap says; may be repeated"),
        .init(.list, "L", "list", help: "list the exports of another server"),
        .init(.json, nil, "json", help: "with --list: print JSON").ownWord,
        .init(.object, nil, "object", value: "OBJDEF", help: "an object that other options refer to"),
        .init(.tlsCreds, nil, "tls-creds", value: "ID", help: "TLS credentials: clients must use TLS"),
        .init(.tlsAuthz, nil, "tls-authz", value: "ID", help: "who may come in over TLS"),
        .init(.tlsHostname, nil, "tls-hostname", value: "NAME", help: "with --list: the name in the server's certificate"),
        .init(.fork, nil, "fork", help: "go into the background once clients can come"),
        .init(.pidFile, nil, "pid-file", value: "PATH", help: "note the server's process id there"),
        .init(.selinuxLabel, nil, "selinux-label", value: "LABEL", help: "SELinux label of the listening socket"),
        .init(.connect, "c", "connect", value: "DEVICE", help: "make FILE the kernel's NBD device of this name"),
        .init(.disconnect, "d", "disconnect", help: "disconnect the kernel's NBD device DEVICE"),
        .init(.format, "f", "format", value: "FMT", help: "the image's format; found out when not given"),
        .init(.readOnly, "r", "read-only", help: "do not let clients write"),
        .init(.snapshot, "s", "snapshot", help: "writes go to a temporary overlay"),
        .init(.loadSnapshot, "l", "load-snapshot", value: "SNAPSHOT", help: "serve an internal snapshot for reading:", "snapshot.id=ID,snapshot.name=NAME, or an id or name"),
        .init(.noCache, "n", "nocache", help: "bypass the host's page cache (--cache=none)"),
        .init(.cache, nil, "cache", value: "MODE", help: "none, writeback (default), writethrough, directsync or unsafe"),
        .init(.aio, nil, "aio", value: "MODE", help: "threads, native or io_uring"),
        .init(.discard, nil, "discard", value: "MODE", help: "what becomes of discards: ignore or unmap (default: ignore)"),
        .init(.detectZeroes, nil, "detect-zeroes", value: "MODE", help: "look for zeroes in what is written: off, on or unmap"),
        .init(.imageOptions, nil, "image-opts", help: "FILE is a list of options instead of a file name", "(not together with --format)"),
    ],
    operands: [.init("FILE", help: "the image to serve")])
