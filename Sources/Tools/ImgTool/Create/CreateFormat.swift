import ToolSupport

/// A format that `create` and `convert` can make, with the `-o` options it takes.
struct CreateFormat: Sendable {
    let name: String
    /// What the format itself understands, in the order in which the "Formatting" line prints them.
    let options: [CreateOption]
    let supportsBacking: Bool
    /// Whether its data can be stored compressed.
    var compresses: Bool { name == CreateFormat.qcow2.name }
    /// Whether the format is the protocol below itself: `file` has no options of another layer.
    let isProtocol: Bool

    /// The options of the format and of the file below it, each once.
    var allOptions: [CreateOption] {
        isProtocol ? options : options + Self.file.options.filter { option in !options.contains { $0.name == option.name } }
    }

    /// The format of that name, nil when we cannot create it.
    static func named(_ name: String) -> CreateFormat? { [raw, qcow2, luks, file].first { $0.name == name } }

    private static let size = CreateOption("size", .size, help: "Virtual disk size")

    static let raw = CreateFormat(name: "raw", options: [size], supportsBacking: false, isProtocol: false)

    static let file = CreateFormat(
        name: "file",
        options: [
            size,
            CreateOption("nocow", .flag, help: "Turn off copy-on-write (valid only on btrfs)"),
            CreateOption("preallocation", .text, help: "Preallocation mode (allowed values: off, falloc, full)"),
            CreateOption("extent_size_hint", .size, help: "Extent size hint for the image file, 0 to disable"),
        ], supportsBacking: false, isProtocol: true)

    /// The options of a LUKS header.
    private static let cipherOptions = [
        CreateOption("cipher-alg", .text, help: "Name of encryption cipher algorithm"),
        CreateOption("cipher-mode", .text, help: "Name of encryption cipher mode"),
        CreateOption("ivgen-alg", .text, help: "Name of IV generator algorithm"),
        CreateOption("ivgen-hash-alg", .text, help: "Name of IV generator hash algorithm"),
        CreateOption("hash-alg", .text, help: "Name of encryption hash algorithm"),
        CreateOption("iter-time", .number, help: "Time to spend in PBKDF in milliseconds"),
    ]

    static let luks = CreateFormat(
        name: "luks",
        options: [size, CreateOption("key-secret", .text, help: "ID of the secret that provides the keyslot passphrase")] + cipherOptions + [
            CreateOption("detached-header", .flag, help: "Create a detached LUKS header")
        ], supportsBacking: false, isProtocol: false)

    static let qcow2 = CreateFormat(
        name: "qcow2",
        options: [
            CreateOption("encryption", .flag, help: "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)"),
            CreateOption("encrypt.format", .text, help: "Encrypt the image, format choices: 'aes', 'luks'"),
            CreateOption("encrypt.key-secret", .text, help: "ID of secret providing qcow AES key or LUKS passphrase"),
        ] + cipherOptions.map { $0.named("encrypt.\($0.name)") } + [
            CreateOption("cluster_size", .size, standard: "65536", help: "qcow2 cluster size"),
            CreateOption("extended_l2", .flag, standard: "off", help: "Extended L2 tables"),
            CreateOption("preallocation", .text, help: "Preallocation mode (allowed values: off, metadata, falloc, full)"),
            CreateOption(
                "compression_type", .text, standard: "zlib", help: "Compression method used for image cluster compression"),
            size,
            CreateOption("compat", .text, help: "Compatibility level (v2 [0.10] or v3 [1.1])"),
            CreateOption("backing_file", .text, help: "File name of a base image"),
            CreateOption("backing_fmt", .text, help: "Image format of the base image"),
            CreateOption("data_file", .text, help: "File name of an external data file"),
            CreateOption("data_file_raw", .flag, help: "The external data file must stay valid as a raw image"),
            CreateOption("keep_data_file", .flag, help: "The external data file is there already and keeps its contents"),
            CreateOption("lazy_refcounts", .flag, standard: "off", help: "Postpone refcount updates"),
            CreateOption("refcount_bits", .number, standard: "16", help: "Width of a reference count entry in bits"),
        ], supportsBacking: true, isProtocol: false)

    /// The answer to `-o help`.
    /// - Parameter knowsFile: whether a file name was given, so that the options of the layer below belong to the answer.
    func helpText(knowsFile: Bool) -> String {
        let shown = knowsFile ? allOptions : options
        var text = knowsFile ? "Supported options:\n" : "Supported \(name) options:\n"
        for option in shown.sorted(by: { $0.name < $1.name }) { text += option.helpLine + "\n" }
        if !knowsFile {
            text += "\nThe protocol level may support further options.\nSpecify the target filename to include those options.\n"
        }
        return text
    }
}
