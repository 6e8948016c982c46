import BlockGraph
import IOCore
import QMPMonitor
package import StorageSchema
package import StrataBase

extension StorageService {
    /// Puts the open file that came with the command into a set.
    package func addFd(_ arguments: AddFdArguments) async throws -> AddfdInfo {
        try checkNotShuttingDown()
        guard let file = PassedDescriptors.current?.take() else {
            throw BlockError(.invalidArgument, "No file descriptor supplied via SCM_RIGHTS")
        }
        let (number, descriptor) = try graph.descriptorSets.add(file, toSet: arguments.fdsetId, opaque: arguments.opaque)
        return AddfdInfo(fdsetId: number, fd: Int(descriptor))
    }

    /// Puts a file that this process has inherited into a set (`--add-fd`). The inherited number itself is left alone.
    package nonisolated func addInherited(descriptor: Int, toSet number: Int, opaque: String?) throws(BlockError) {
        guard descriptor > 2 else { throw BlockError(.invalidArgument, "fd \(descriptor) cannot be added: 0, 1 and 2 are the standard streams") }
        guard let descriptor = Int32(exactly: descriptor), OwnedDescriptor.isInherited(descriptor) else {
            throw BlockError(.invalidArgument, "fd \(descriptor) is not an open file that this process has inherited")
        }
        _ = try graph.descriptorSets.add(try OwnedDescriptor(duplicating: descriptor), toSet: number, opaque: opaque)
    }
}
