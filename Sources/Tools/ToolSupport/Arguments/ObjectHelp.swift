import IOCore
import ManagedObjects
import StorageCommands
import StorageSchema

/// What `--object help` and `--object iothread,help` print.
package enum ObjectHelp {
    package static func isWanted(_ text: String) -> Bool {
        if text.hasPrefix("{") { return false }
        let list = OptionList(parsing: text, impliedKey: "qom-type")
        return list.asksForHelp || ["help", "?"].contains(list["qom-type"])
    }

    /// Prints what a definition asks for.
    /// - Throws: `nothingLeftToDo` when it does ask; then that is all that the tool does.
    package static func answer(_ definition: String) throws(ToolFailure) {
        guard isWanted(definition) else { return }
        guard StandardStreams.print(text(for: definition)) else { throw ToolFailure("Could not write to standard output") }
        throw .nothingLeftToDo
    }

    /// What one type takes; for a type that does not exist, those that do.
    package static func text(for text: String) -> String {
        let types = ObjectCatalog.types
        let asked = OptionList(parsing: text, impliedKey: "qom-type")["qom-type"] ?? "help"
        // The one type whose name as an option is not its name in the object model.
        let name = asked == "authz-listfile" ? "authz-list-file" : asked
        guard types.userCreatableNames.contains(name), let type = types.entry(named: name) else {
            return "List of user creatable objects:\n" + types.userCreatableNames.map { "  \($0)\n" }.joined()
        }
        return "\(name) options:\n" + type.properties.filter { $0.name != "type" }.map { "  \($0.name)=<\($0.type)>\n" }.sorted().joined()
    }
}
