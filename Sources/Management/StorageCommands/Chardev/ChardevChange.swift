import CharacterDevices
package import StorageSchema
import StrataBase

extension StorageService {
    /// Puts something else behind a character device that nobody uses.
    package func chardevChange(_ arguments: ChardevChangeArguments) async throws -> ChardevReturn {
        try checkNotShuttingDown()
        do throws(BlockError) {
            let device = try await chardevs.change(arguments.id, arguments.backend, chardevFactory(.monitor))
            return ChardevReturn(pty: device.terminalPath)
        } catch where error.code == .notFound && chardevs.find(arguments.id) == nil || chardevs.find(arguments.id)?.isFrontendOpen == true {
            throw error
        } catch {
            throw error.during("Failed to add chardev '\(arguments.id)'")
        }
    }
}
