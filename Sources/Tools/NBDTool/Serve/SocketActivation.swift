import Glibc
import IOCore
import StrataBase
import ToolSupport

/// Sockets that the process was started with (systemd's protocol: LISTEN_PID, LISTEN_FDS, descriptors from 3 on).
enum SocketActivation {
    private static let firstDescriptor: Int32 = 3

    /// The descriptors, or nothing when the process was started without.
    /// - Throws: when the environment contradicts itself or the options.
    static func take(unless plan: NBDToolPlan) throws(ToolFailure) -> [Int32] {
        guard let process = HostEnvironment["LISTEN_PID"], Int32(process) == getpid(), let text = HostEnvironment["LISTEN_FDS"] else { return [] }
        guard let count = Int32(text), count > 0, count <= 128 else { throw ToolFailure("LISTEN_FDS is '\(text)' and not a number of sockets") }
        if plan.namesAddress { throw ToolFailure("--port, --bind and --socket make no sense for a process that is started with its sockets") }
        let descriptors = Array(firstDescriptor..<firstDescriptor + count)
        for descriptor in descriptors { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
        return descriptors
    }
}
