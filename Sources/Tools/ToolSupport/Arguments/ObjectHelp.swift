import ManagedObjects
package import QAPIRuntime
import StorageCommands
import StorageSchema

/// What `--object help` and `--object iothread,help` print.
package enum ObjectHelp {
    package static func isWanted(_ text: String) -> Bool {
        if text.hasPrefix("{") { return false }
        let list = OptionList(parsing: text, impliedKey: "qom-type")
        return list.asksForHelp || ["help", "?"].contains(list["qom-type"])
    }

    package static func text(for text: String) throws(QMPError) -> String {
        let types = ObjectCatalog.types
        let asked = OptionList(parsing: text, impliedKey: "qom-type")["qom-type"] ?? "help"
        if asked == "help" || asked == "?" {
            return "List of user creatable objects:\n" + types.userCreatableNames.map { "  \($0)\n" }.joined()
        }
        // The one type whose name as an option is not its name in the object model.
        let name = asked == "authz-listfile" ? "authz-list-file" : asked
        guard types.userCreatableNames.contains(name), let type = types.entry(named: name) else {
            throw QMPError("Parameter 'qom-type' does not accept value '\(asked)'")
        }
        let properties = type.properties.filter { $0.name != "type" }.sorted { $0.name < $1.name }
        return "\(name) options:\n" + properties.map { "  \($0.name)=<\($0.type)>\n" }.joined()
    }
}
