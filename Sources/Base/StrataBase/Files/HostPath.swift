import Glibc

/// Names of files on the host.
package enum HostPath {
    /// The same file named from the root, for programs that change their directory later. Nothing is resolved; the file need not exist.
    package static func absolute(_ path: String) -> String {
        if path.hasPrefix("/") { return path }
        // SAFETY: with no buffer given, getcwd returns a NUL-terminated string that the caller frees.
        guard let directory = unsafe getcwd(nil, 0) else { return path }
        defer { unsafe free(directory) }
        let start = unsafe String(cString: directory)
        return start.hasSuffix("/") ? start + path : start + "/" + path
    }
}
