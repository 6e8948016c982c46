import ToolSupport

/// What an image to be created shall be: a format and checked values of its options.
struct CreateRequest: Sendable {
    let filename: String
    let format: CreateFormat
    /// By option name.
    private var values: [String: CreateValue] = [:]

    /// - Throws: a failure that names the option which the format does not have or whose value is not of its kind.
    init(filename: String, format: CreateFormat, options: OptionList) throws(ToolFailure) {
        self.filename = filename
        self.format = format
        let known = format.allOptions
        for element in options.elements {
            if let option = known.first(where: { $0.name == element.key }) {
                // A key alone is a switch being turned on.
                guard element.value != nil || option.kind != .text else { throw ToolFailure("Invalid parameter '\(element.key)'") }
                values[option.name] = try CreateValue(element.value, for: option)
            } else if element.value == nil, element.key.hasPrefix("no"),
                let option = known.first(where: { $0.name == element.key.dropFirst(2) && $0.kind == .flag })
            {
                values[option.name] = .flag(false, written: "off")
            } else {
                throw ToolFailure("Invalid parameter '\(element.key)'")
            }
        }
    }

    func text(_ name: String) -> String? {
        guard case .text(let text) = values[name] else { return nil }
        return text
    }

    func flag(_ name: String) -> Bool? {
        guard case .flag(let flag, _) = values[name] else { return nil }
        return flag
    }

    func number(_ name: String) -> Int? {
        switch values[name] {
        case .number(let number), .size(let number): number
        default: nil
        }
    }

    var hasBacking: Bool { text("backing_file") != nil }
    /// Whether the new image shows nothing but zeroes: what nobody has encrypted shows anything.
    var readsAsZero: Bool { !hasBacking && format.name != CreateFormat.luks.name }

    func isSet(_ name: String) -> Bool { values[name] != nil }

    /// What the new image has to be opened with: its secret, by the names that options for opening have.
    var keyOptions: [(path: [String], value: String)] {
        if let secret = text("key-secret") { return [(["key-secret"], secret)] }
        guard let secret = text("encrypt.key-secret") else { return [] }
        return [(["encrypt", "format"], flag("encryption") == true ? "aes" : text("encrypt.format") ?? ""), (["encrypt", "key-secret"], secret)]
    }

    mutating func set(_ name: String, to value: CreateValue?) { values[name] = value }

    /// The virtual size in bytes, once it is known.
    var size: Int? { number("size") }

    /// The line that `create` prints before it starts.
    var announcement: String {
        var line = "Formatting '\(filename)', fmt=\(format.name)"
        for option in format.allOptions {
            if let text = values[option.name]?.text ?? option.standard { line += " \(option.name)=\(text)" }
        }
        return line + "\n"
    }
}
