import ToolSupport

enum DaemonKey: OptionKey {
    case help, version, addFd, blockdev, chardev, compat, daemonize, export, monitor, nbdServer, object, pidfile
}

let daemonDeclaration = CommandDeclaration<DaemonKey>(
    "daemon", summary: "Storage daemon: serves block nodes to other processes, controlled over QMP", usage: ["[options]"],
    options: [
        .init(.version, "V", "version", help: "display version info and exit"),
        .init(
            .addFd, nil, "add-fd", value: "OPTIONS",
            help: "add an inherited file to a set: fd=<number>,set=<number>[,opaque=<text>];", "filename=/dev/fdset/<number> then stands for it").ownWord,
        .init(
            .blockdev, nil, "blockdev", value: "OPTIONS",
            help: "add a block node: JSON, or", "[driver=]<driver>,node-name=<name>[,read-only=on|off][,auto-read-only=on|off]",
            "[,cache.direct=on|off][,cache.no-flush=on|off][,discard=ignore|unmap]", "[,detect-zeroes=on|off|unmap][,force-share=on|off]",
            "[,options of the driver...]; strata img --help lists the drivers"),
        .init(
            .chardev, nil, "chardev", value: "OPTIONS",
            help: "make a byte stream for a monitor: stdio,id=<id>, or", "socket,id=<id>,path=<path>[,server=on|off][,wait=on|off], or",
            "socket,id=<id>,host=<host>,port=<port>[,server=on|off][,wait=on|off]", "[,telnet=on|off][,websocket=on|off][,tls-creds=<id>][,tls-authz=<id>], or",
            "file, pipe, pty, ringbuf or null"),
        .init(
            .compat, nil, "compat", value: "OPTIONS",
            help: "what becomes of deprecated and unstable parts of QMP:", "[deprecated-input=accept|reject|crash][,deprecated-output=accept|hide]",
            "[,unstable-input=accept|reject|crash][,unstable-output=accept|hide]").ownWord,
        .init(.daemonize, nil, "daemonize", help: "go to the background once startup is complete"),
        .init(
            .export, nil, "export", value: "OPTIONS",
            help: "export a block node: JSON, or", "[type=]nbd,id=<id>,node-name=<name>[,name=<export name>][,writable=on|off]",
            "[,description=<text>][,bitmaps.0=<name>...][,writethrough=on|off]", "[,iothread=<id>] (needs --nbd-server before it)"),
        .init(
            .monitor, nil, "monitor", value: "OPTIONS",
            help: "serve QMP on a byte stream: [chardev=]<id>[,mode=control][,pretty=on|off]"),
        .init(
            .nbdServer, nil, "nbd-server", value: "OPTIONS",
            help: "start the NBD server: JSON, or", "addr.type=unix,addr.path=<path>[,max-connections=<n>], or",
            "addr.type=inet,addr.host=<host>,addr.port=<port>[,max-connections=<n>]", "[,tls-creds=<id>][,tls-authz=<id>]"),
        .init(
            .object, nil, "object", value: "OPTIONS",
            help: "make an object: [qom-type=]<type>,id=<id>[,<property>=<value>...]", "(--object help lists the types, --object <type>,help what one takes)"),
        .init(.pidfile, nil, "pidfile", value: "PATH", help: "write the process's number to a file once startup is complete"),
    ])
