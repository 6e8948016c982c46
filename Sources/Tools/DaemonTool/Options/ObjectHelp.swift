import QAPIRuntime
import StorageSchema
import ToolSupport

/// What `--object help` and `--object iothread,help` print.
enum ObjectHelp {
    static func isWanted(_ text: String) -> Bool {
        if text.hasPrefix("{") { return false }
        let list = OptionList(parsing: text, impliedKey: "qom-type")
        return list.asksForHelp || ["help", "?"].contains(list["qom-type"])
    }

    static func text(for text: String) throws(QMPError) -> String {
        let type = OptionList(parsing: text, impliedKey: "qom-type")["qom-type"] ?? "help"
        switch ObjectType(rawValue: type) {
        case .iothread:
            return "iothread options:\n" + properties.map { "  \($0)=<int>\n" }.joined()
        case nil:
            guard type == "help" || type == "?" else { throw QMPError("Parameter 'qom-type' does not accept value '\(type)'") }
            return "List of user creatable objects:\n" + ObjectType.allCases.map { "  \($0.rawValue)\n" }.joined()
        }
    }

    private static let properties = ["aio-max-batch", "poll-grow", "poll-max-ns", "poll-shrink", "thread-pool-max", "thread-pool-min"]
}
