internal import CStrataLinux
package import StrataBase

/// An open file whose number somebody else has chosen: received through a socket, or inherited. Closed with the last reference.
package final class OwnedDescriptor: Sendable {
    package let descriptor: Int32

    package init(_ descriptor: Int32) { self.descriptor = descriptor }

    /// Another number for the same open file.
    /// - Throws: `.system(EBADF)` when nothing is open under that number.
    package convenience init(duplicating descriptor: Int32) throws(BlockError) {
        let copy = strata_duplicate(descriptor)
        if copy < 0 { throw BlockError(errno: -copy, "Could not use file descriptor \(descriptor)") }
        self.init(copy)
    }

    /// Closes a descriptor that was inherited and is not one of ours, which are all closed on exec.
    package static func closeInherited(_ descriptor: Int) {
        guard let descriptor = Int32(exactly: descriptor), strata_descriptor_is_inherited(descriptor) == 1 else { return }
        _ = strata_close(descriptor)
    }

    /// Whether the number is that of an open file that was inherited.
    package static func isInherited(_ descriptor: Int32) -> Bool { strata_descriptor_is_inherited(descriptor) == 1 }

    deinit { _ = strata_close(descriptor) }
}
