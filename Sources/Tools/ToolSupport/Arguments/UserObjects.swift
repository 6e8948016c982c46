package import ManagedObjects
import QAPIRuntime
import StorageCommands
import StorageSchema
import StrataBase

/// The objects of `--object`: accepted by every command, since scripts pass them everywhere.
package enum UserObjects {
    /// Makes what the definitions describe, in their order: a later one may refer to an earlier one.
    /// - Throws: a failure that names what is wrong; then nothing of it remains. `nothingLeftToDo` when a definition asked for help.
    package static func make(_ definitions: [String]) throws(ToolFailure) -> ObjectRegistry {
        let registry = ObjectRegistry()
        for definition in definitions {
            try ObjectHelp.answer(definition)
            do throws(QMPError) {
                let (value, mode) = try KeyValueParser.parseArgument(definition, impliedKey: "qom-type")
                let options = try ObjectOptions(decoding: value, mode: mode)
                do throws(BlockError) { try ObjectCatalog.add(options, to: registry) } catch { throw QMPError(error) }
            } catch {
                throw ToolFailure(error.message)
            }
        }
        return registry
    }
}
