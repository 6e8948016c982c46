import BlockGraph
import StorageSchema
import ToolSupport

/// The `-o` options of `amend`.
enum AmendOptions {
    /// What of a qcow2 image can be changed. The options for encrypted images come when the images do.
    private static let changeable: Set<String> = ["backing_file", "backing_fmt", "compat", "data_file", "data_file_raw", "lazy_refcounts", "refcount_bits", "size"]

    /// The answer to `-o help`.
    static func help(format name: String) throws(ToolFailure) -> String {
        guard name == CreateFormat.qcow2.name else {
            guard DriverNames.all.contains(name) else { throw ToolFailure("Unknown file format '\(name)'") }
            throw ToolFailure("Format driver '\(name)' does not support option amendment")
        }
        let options = CreateFormat.qcow2.options.filter { changeable.contains($0.name) }.sorted { $0.name < $1.name }
        return "Amend options for '\(name)':\n" + options.map { $0.helpLine + "\n" }.joined()
    }

    /// - Throws: a failure that names the option that does not exist, cannot be changed or has a wrong value.
    static func amendment(_ list: OptionList) throws(ToolFailure) -> ImageAmendment {
        let format = CreateFormat.qcow2
        for element in list.elements {
            let isKnown = { (name: String) in changeable.contains(name) || changeable.contains { "no\($0)" == name } }
            guard !isKnown(element.key) else { continue }
            let isForCreation = format.options.contains { $0.name == element.key }
            throw ToolFailure("Invalid parameter '\(element.key)'", advice: isForCreation ? ["This option is only supported for image creation"] : [])
        }
        let request = try CreateRequest(filename: "", format: format, options: list)
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
        return amendment
    }
}
