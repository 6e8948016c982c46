import CharacterDevices
import ManagedObjects
package import StorageSchema
import StrataBase

extension StorageService {
    /// Takes bytes out of a ring buffer.
    package func ringbufRead(_ arguments: RingbufReadArguments) async throws -> String {
        let buffer = try ringBuffer(arguments.device)
        guard arguments.size > 0 else { throw BlockError(.invalidArgument, "size must be greater than zero") }
        let bytes = buffer.read(arguments.size)
        switch arguments.format ?? .utf8 {
        case .utf8: return String(decoding: bytes, as: UTF8.self)
        case .base64: return Base64.encode(bytes)
        }
    }

    /// Puts bytes into a ring buffer.
    package func ringbufWrite(_ arguments: RingbufWriteArguments) async throws {
        let buffer = try ringBuffer(arguments.device)
        switch arguments.format ?? .utf8 {
        case .utf8: buffer.write(Array(arguments.data.utf8))
        case .base64:
            guard let bytes = Base64.decode(Array(arguments.data.utf8)) else {
                throw BlockError(.invalidArgument, "Base64 data contains invalid characters")
            }
            buffer.write(bytes)
        }
    }

    private func ringBuffer(_ label: String) throws(BlockError) -> RingBufferChardev {
        guard let device = chardevs.find(label) else { throw BlockError(.notFound, "Device '\(label)' not found") }
        guard let buffer = device as? RingBufferChardev else { throw BlockError(.invalidArgument, "\(label) is not a ringbuf device") }
        return buffer
    }
}
