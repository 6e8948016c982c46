import BlockGraph
import IOCore
package import StorageSchema

extension StorageService {
    /// Lists the sets of open files.
    package func queryFdsets() async throws -> [FdsetInfo] {
        graph.descriptorSets.contents.map { set in
            FdsetInfo(fdsetId: set.number, fds: set.members.map { FdsetFdInfo(fd: Int($0.descriptor), opaque: $0.opaque) })
        }
    }
}
