import Glibc

/// Reading and writing whole files that fit in memory: schemas, passwords, pid files. Blocking; not for guest data.
package enum SmallFile {
    /// The bytes of a file.
    /// - Throws: the system's error, naming the file; `.tooLarge` when it holds more than `limit` bytes.
    package static func read(_ path: String, limit: Int = 64 << 20) throws(BlockError) -> [UInt8] {
        let contents = try beginning(of: path, byteCount: limit + 1)
        if contents.count > limit { throw BlockError(.tooLarge, "File '\(path)' is larger than \(limit) bytes") }
        return contents
    }

    /// The first bytes of a file: `byteCount` of them, or all if there are fewer.
    /// - Throws: the system's error, naming the file.
    package static func beginning(of path: String, byteCount: Int) throws(BlockError) -> [UInt8] {
        if HostPath.isCutOff(path) { throw BlockError(errno: ENOENT, "Could not open '\(path)'") }
        // SAFETY: the string lives and stays NUL-terminated for the time of the call.
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw BlockError(errno: Glibc.errno, "Could not open '\(path)'") }
        defer { close(descriptor) }
        var contents: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: min(max(byteCount, 1), 1 << 16))
        while contents.count < byteCount {
            // SAFETY: the pointer covers exactly the `count` bytes of the array for the time of the call.
            let count = unsafe chunk.withUnsafeMutableBytes { unsafe Glibc.read(descriptor, $0.baseAddress, $0.count) }
            if count == 0 { break }
            if count < 0 {
                if Glibc.errno == EINTR { continue }
                throw BlockError(errno: Glibc.errno, "Could not read '\(path)'")
            }
            contents += chunk[..<min(count, byteCount - contents.count)]
        }
        return contents
    }

    /// Replaces the contents of a file, creating it if need be.
    package static func write(_ contents: [UInt8], to path: String) throws(BlockError) {
        // SAFETY: the string lives and stays NUL-terminated for the time of the call.
        let descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o666)
        guard descriptor >= 0 else { throw BlockError(errno: Glibc.errno, "Could not create '\(path)'") }
        defer { close(descriptor) }
        do {
            try write(contents, toDescriptor: descriptor)
        } catch {
            throw error.during("Could not write '\(path)'")
        }
    }

    /// Writes all bytes to an open descriptor, such as that of the standard error stream.
    package static func write(_ contents: [UInt8], toDescriptor descriptor: Int32) throws(BlockError) {
        var rest = contents[...]
        while !rest.isEmpty {
            // SAFETY: the pointer covers exactly the `count` bytes of the slice for the time of the call.
            let count = unsafe rest.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0 {
                if Glibc.errno == EINTR { continue }
                throw BlockError(errno: Glibc.errno, "Writing \(rest.count) bytes failed")
            }
            rest = rest.dropFirst(count)
        }
    }
}
