import QAPIRuntime
import ToolSupport

/// What `--add-fd` asks for: a file that this process has inherited becomes a member of a set.
struct InheritedDescriptor: Sendable, Hashable {
    let descriptor: Int
    let set: Int
    let opaque: String?

    /// - Throws: what is wrong, by name.
    init(parsing text: String) throws(QMPError) {
        let list = OptionList(parsing: text)
        for element in list.elements where !["fd", "set", "opaque"].contains(element.key) {
            throw QMPError("Invalid parameter '\(element.key)'")
        }
        descriptor = try Self.number(list, "fd")
        set = try Self.number(list, "set")
        opaque = list["opaque"]
    }

    private static func number(_ list: OptionList, _ key: String) throws(QMPError) -> Int {
        guard let text = list[key] else { throw QMPError("Parameter '\(key)' is missing") }
        guard let number = Int(text), number >= 0 else { throw QMPError("Parameter '\(key)' expects a number") }
        return number
    }
}
