import Glibc

/// Files that only their owner may read.
package enum PrivateFile {
    /// Replaces a file as a whole, making the folders that lead to it.
    package static func write(_ contents: [UInt8], to path: String) throws(BlockError) {
        var folder = ""
        for part in path.split(separator: "/").dropLast() {
            folder += "/" + part
            // SAFETY: the string lives for the time of the call. A folder that is there already is as good.
            _ = unsafe mkdir(folder, 0o700)
        }
        let draft = "\(path).\(getpid())"
        // SAFETY: as above.
        let descriptor = unsafe open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw BlockError(errno: Glibc.errno, "Could not create '\(draft)'") }
        defer { close(descriptor) }
        do throws(BlockError) {
            try SmallFile.write(contents, toDescriptor: descriptor)
            // SAFETY: as above.
            if unsafe rename(draft, path) != 0 { throw BlockError(errno: Glibc.errno, "Could not replace '\(path)'") }
        } catch {
            _ = unsafe unlink(draft)
            throw error
        }
    }
}

/// The variables of the environment.
package enum HostEnvironment {
    /// Nil for a variable that is missing or empty.
    package static subscript(name: String) -> String? {
        // SAFETY: getenv returns a NUL-terminated string; nothing of ours changes the environment.
        guard let value = unsafe getenv(name) else { return nil }
        let text = unsafe String(cString: value)
        return text.isEmpty ? nil : text
    }
}
