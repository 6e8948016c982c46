import ToolSupport

/// The options of the tool itself.
enum IOKey: OptionKey {
    case help, version, object, imageOptions, command, format, readOnly, snapshot, noCache, copyOnRead, misalign, nativeAIO, aio, cache, discard
    case forceShare
}

let ioDeclaration = CommandDeclaration<IOKey>(
    "io", summary: "Disk image exerciser", usage: ["[OPTIONS]... [-c COMMAND]... [FILE]"],
    options: [
        .init(.version, "V", "version", help: "display version info and exit"),
        .object(.object),
        .init(.imageOptions, nil, "image-opts", help: "FILE is a list of options instead of a file name", "(not together with --format)"),
        .init(.command, "c", "cmd", value: "COMMAND", help: "carry out this command; may be repeated (-c help lists them)"),
        .format(.format),
        .init(.readOnly, "r", "read-only", help: "open for reading only"),
        .init(.snapshot, "s", "snapshot", help: "writes go to a temporary overlay"),
        .init(.noCache, "n", "nocache", help: "bypass the host's page cache (-t none)"),
        .init(.copyOnRead, "C", "copy-on-read", help: "what is read from a backing file is kept in the image"),
        .init(.misalign, "m", "misalign", help: "use memory that is not aligned for direct I/O"),
        .init(.nativeAIO, "k", "native-aio", help: "the same as -i native"),
        .init(.aio, "i", "aio", value: "MODE", help: "how files are accessed: threads, native or io_uring"),
        .init(.cache, "t", "cache", value: "MODE", help: "cache mode (default: writeback)"),
        .init(.discard, "d", "discard", value: "MODE", help: "what becomes of discards: ignore or unmap (default)"),
        .init(.forceShare, "U", "force-share", help: "open although another process uses the image (with -r)"),
    ],
    operands: [.init("FILE", help: "the image; without one, the command 'open' opens one")])

extension OpenRequest {
    /// What the tool's own options say about the image.
    init(_ arguments: ParsedArguments<IOKey>) throws(CommandFailure) {
        self.init()
        for option in arguments.occurrences {
            switch (option.key, option.value) {
            case (.readOnly, _): isReadOnly = true
            case (.snapshot, _): isSnapshot = true
            case (.noCache, _): try setCache("none")
            case (.copyOnRead, _): copiesOnRead = true
            case (.nativeAIO, _): aio = "native"
            case (.aio, let mode?): try setAIO(mode)
            case (.cache, let mode?): try setCache(mode)
            case (.discard, let mode?): try setDiscard(mode)
            case (.forceShare, _): forceShare = true
            case (.imageOptions, _): isOptions = true
            case (.format, let name?): format = name
            default: break
            }
        }
        if isOptions, format != nil { throw .reported("--image-opts and -f are mutually exclusive") }
    }
}
