import StrataBase
import ToolSupport

/// One `-o` option of image creation.
struct CreateOption: Sendable {
    enum Kind: Sendable {
        case text
        case flag
        case number
        case size
    }

    let name: String
    let kind: Kind
    /// What the "Formatting" line says when the option is not given; nil for an option that is silent then.
    let standard: String?
    let help: String

    init(_ name: String, _ kind: Kind, standard: String? = nil, help: String) {
        self.name = name
        self.kind = kind
        self.standard = standard
        self.help = help
    }

    /// The same option under the name that another layer gives it.
    func named(_ name: String) -> CreateOption { CreateOption(name, kind, standard: standard, help: help) }

    /// The line of `-o help`.
    var helpLine: String {
        let type =
            switch kind {
            case .text: "str"
            case .flag: "bool (on/off)"
            case .number: "num"
            case .size: "size"
            }
        let left = "\(name)=<\(type)>"
        return "  \(left)\(String(repeating: " ", count: max(0, 22 - left.utf8.count))) - \(help)"
    }
}

/// A value of a `CreateOption`, checked to be of its kind.
enum CreateValue: Hashable, Sendable {
    case text(String)
    /// With the word that stands for it in the "Formatting" line: the user's own.
    case flag(Bool, written: String)
    case number(Int)
    case size(Int)

    /// Parses what follows the `=`; `nil` stands for an option without one, which only flags allow.
    init(_ text: String?, for option: CreateOption) throws(ToolFailure) {
        switch option.kind {
        case .text:
            self = .text(text ?? "on")
        case .flag:
            let word = text ?? "on"
            switch word {
            case "on", "yes", "true", "y": self = .flag(true, written: word)
            case "off", "no", "false", "n": self = .flag(false, written: word)
            default: throw ToolFailure("Parameter '\(option.name)' expects 'on' or 'off'")
            }
        case .number:
            guard let text, let value = NumberArgument.inCNotation(text) else { throw ToolFailure("Parameter '\(option.name)' expects a number") }
            self = .number(value)
        case .size:
            self = .size(try NumberArgument.size(text ?? "", option.name))
        }
    }

    /// As the "Formatting" line prints it.
    var text: String {
        switch self {
        case .text(let text): OptionList.escaped(text)
        case .flag(_, let word): word
        case .number(let number), .size(let number): String(number)
        }
    }
}
