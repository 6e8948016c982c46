import BlockGraph
import IOCore
package import StorageSchema
import StrataBase

extension StorageService {
    /// Closes a member of a set, or all of them.
    package func removeFd(_ arguments: RemoveFdArguments) async throws {
        let descriptor = arguments.fd.map { Int32(exactly: $0) ?? -1 }
        try graph.descriptorSets.remove(descriptor, fromSet: arguments.fdsetId)
    }
}
