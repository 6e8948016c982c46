import BlockGraph
import IOCore
package import StrataBase

extension QCOW2Driver: Emptying {
    /// Takes every guest cluster out of the tables; snapshots keep theirs. A crash leaves some clusters out and others not.
    package func makeEmpty() async throws(BlockError) {
        try await prepareForWriting()
        await resizing.lock()
        defer { resizing.unlock() }
        try await unmap(from: GuestOffset(0), to: GuestOffset(length.roundedUp(to: geometry.clusterSize)), .forget)
        try await flush()
    }
}
