import Glibc

/// Names of files on the host.
package enum HostPath {
    /// The same file named from the root, for programs that change their directory later. Nothing is resolved; the file need not exist.
    package static func absolute(_ path: String) -> String {
        if isAbsolute(path) { return path }
        // SAFETY: with no buffer given, getcwd returns a NUL-terminated string that the caller frees.
        guard let directory = unsafe getcwd(nil, 0) else { return path }
        defer { unsafe free(directory) }
        let start = unsafe String(cString: directory)
        return start.hasSuffix("/") ? start + path : start + "/" + path
    }

    /// Whether a name begins with a slash. In bytes: an accent behind the slash would make one character of both.
    package static func isAbsolute(_ path: String) -> Bool { path.utf8.first == UInt8(ascii: "/") }

    /// Whether the kernel would see this name only up to a zero byte, and so another file than the one that is meant. No file has such a name: whoever is
    /// asked for one answers that it is not there.
    package static func isCutOff(_ path: String) -> Bool { path.utf8.contains(0) }
}
