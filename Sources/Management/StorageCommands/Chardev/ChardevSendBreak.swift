import CharacterDevices
package import StorageSchema
import StrataBase

extension StorageService {
    /// Sends a break. None of our kinds of devices knows what that is: they take no notice, as QEMU's do not.
    package func chardevSendBreak(_ arguments: ChardevSendBreakArguments) async throws {
        guard chardevs.find(arguments.id) != nil else { throw BlockError(.notFound, "Chardev '\(arguments.id)' not found") }
    }
}
