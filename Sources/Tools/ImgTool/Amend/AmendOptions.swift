import BlockGraph
import StorageSchema
import ToolSupport

/// The `-o` options of `amend`.
struct AmendOptions {
    /// Nil for a format of which only the keys can be changed.
    private(set) var image: ImageAmendment?
    private(set) var keySlots: QCryptoBlockAmendOptionsLUKS?

    /// What of a qcow2 image can be changed, apart from its keys.
    private static let changeable: Set<String> = ["backing_file", "backing_fmt", "compat", "data_file", "data_file_raw", "lazy_refcounts", "refcount_bits", "size"]

    private static let keySlotOptions = [
        CreateOption("iter-time", .number, help: "Time to spend in PBKDF in milliseconds"),
        CreateOption("keyslot", .number, help: "Select a single keyslot to modify explicitly"),
        CreateOption("new-secret", .text, help: "New secret to set in the matching keyslots. Empty string to erase"),
        CreateOption("old-secret", .text, help: "Select all keyslots that match this password"),
        CreateOption("state", .text, help: "Select new state of affected keyslots (active/inactive)"),
    ]

    /// What stands before the names of the options for keys.
    private static func prefix(_ format: String) -> String { format == CreateFormat.luks.name ? "" : "encrypt." }

    /// The options of a format.
    private static func options(of name: String) throws(ToolFailure) -> [CreateOption] {
        let keys = keySlotOptions.map { $0.named(prefix(name) + $0.name) }
        switch name {
        case CreateFormat.luks.name: return keys
        case CreateFormat.qcow2.name: return CreateFormat.qcow2.options.filter { changeable.contains($0.name) } + keys
        default:
            guard DriverNames.all.contains(name) else { throw ToolFailure("Unknown file format '\(name)'") }
            throw ToolFailure("Format driver '\(name)' does not support option amendment")
        }
    }

    /// The answer to `-o help`.
    static func help(format name: String) throws(ToolFailure) -> String {
        "Amend options for '\(name)':\n" + (try options(of: name)).sorted { $0.name < $1.name }.map { $0.helpLine + "\n" }.joined()
    }

    /// - Throws: a failure that names the option that does not exist, cannot be changed or has a wrong value.
    init(_ list: OptionList, format name: String) throws(ToolFailure) {
        let options = try Self.options(of: name)
        let forCreation = CreateFormat.named(name)?.options ?? []
        for element in list.elements where !options.contains(where: { $0.name == element.key || "no\($0.name)" == element.key }) {
            let isForCreation = forCreation.contains { $0.name == element.key }
            throw ToolFailure("Invalid parameter '\(element.key)'", advice: isForCreation ? ["This option is only supported for image creation"] : [])
        }
        let format = CreateFormat(name: name, options: options, supportsBacking: false, isProtocol: true)
        let request = try CreateRequest(filename: "", format: format, options: list)
        keySlots = try Self.keySlots(request, prefix: Self.prefix(name))
        if name == CreateFormat.luks.name {
            if keySlots == nil { throw ToolFailure("Parameter 'state' is missing") }
            return
        }
        var amendment = ImageAmendment()
        if let compat = request.text("compat") {
            switch compat {
            case "0.10", "v2": amendment.version = .v2
            case "1.1", "v3": amendment.version = .v3
            default: throw ToolFailure("Unknown compatibility level \(compat)")
            }
        }
        amendment.size = request.size
        amendment.backingFile = request.text("backing_file")
        amendment.backingFormat = request.text("backing_fmt")
        amendment.dataFile = request.text("data_file")
        amendment.dataFileRaw = request.flag("data_file_raw")
        amendment.lazyRefcounts = request.flag("lazy_refcounts")
        amendment.refcountBits = request.number("refcount_bits")
        image = amendment
    }

    /// Nil when no option is about keys.
    private static func keySlots(_ request: CreateRequest, prefix: String) throws(ToolFailure) -> QCryptoBlockAmendOptionsLUKS? {
        guard keySlotOptions.contains(where: { request.isSet(prefix + $0.name) }) else { return nil }
        guard let word = request.text("\(prefix)state") else { throw ToolFailure("Parameter 'state' is missing") }
        guard let state = QCryptoBlockLUKSKeyslotState(rawValue: word) else { throw ToolFailure("Parameter 'state' does not accept value '\(word)'") }
        return QCryptoBlockAmendOptionsLUKS(
            state: state, newSecret: request.text("\(prefix)new-secret"), oldSecret: request.text("\(prefix)old-secret"),
            keyslot: request.number("\(prefix)keyslot"), iterTime: request.number("\(prefix)iter-time"))
    }
}
