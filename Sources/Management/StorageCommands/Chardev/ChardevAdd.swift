import CharacterDevices
import IOCore
package import StorageSchema
package import StrataBase

extension StorageService {
    /// Makes a character device.
    package func chardevAdd(_ arguments: ChardevAddArguments) async throws -> ChardevReturn {
        try checkNotShuttingDown()
        do throws(BlockError) {
            let device = try await chardevs.add(arguments.id, arguments.backend, chardevFactory(.monitor))
            return ChardevReturn(pty: device.terminalPath)
        } catch where error.code == .alreadyExists {
            throw error
        } catch {
            throw error.during("Failed to add chardev '\(arguments.id)'")
        }
    }

    /// The same from the command line, which may hand descriptors over.
    package func addChardev(_ label: String, _ backend: ChardevBackend) async throws(BlockError) {
        try await chardevs.add(label, backend, chardevFactory(.commandLine))
    }

    func chardevFactory(_ origin: ChardevFactory.Origin) -> ChardevFactory {
        ChardevFactory(context: context, origin: origin, objects: objects) { [self] in await waitForQuit() }
    }
}
