package import StrataBase
import Glibc

// What is done to names rather than to open files.

extension HostFile {
    /// Makes sure that a file of that name exists.
    /// - Returns: whether it had to be made. An existing one is not touched.
    /// - Parameter extentHint: see `setExtentHint`; for a file that is made.
    /// - Throws: `Could not create 'PATH': CAUSE`.
    package static func create(_ path: String, extentHint: Int = usualExtentHint) throws(BlockError) -> Bool {
        do throws(BlockError) {
            _ = try HostFile(opening: path, OpenOptions(writable: true))
            return false
        } catch where error.code == .notFound {
            // Made below.
        } catch where error.code == .invalidArgument {
            throw error
        } catch {
            throw BlockError(errno: error.errno, "Could not create '\(path)'")
        }
        do throws(BlockError) {
            try HostFile(opening: path, OpenOptions(writable: true, create: true)).setExtentHint(extentHint)
            return true
        } catch {
            throw BlockError(errno: error.errno, "Could not create '\(path)'")
        }
    }

    /// Makes an empty file with a name that nobody else has, readable and writable by this user only.
    /// - Returns: its path.
    package static func createTemporary(in folder: String, prefix: String) throws(BlockError) -> String {
        var path = Array("\(folder)/\(prefix)XXXXXX".utf8CString)
        // SAFETY: the C function changes the last six characters of a NUL-terminated array, which lives for the call.
        let descriptor = unsafe path.withUnsafeMutableBufferPointer { buffer in unsafe buffer.baseAddress.map { unsafe mkstemp($0) } ?? -1 }
        guard descriptor >= 0 else { throw BlockError(errno: errno, "Could not create a temporary file in '\(folder)'") }
        Glibc.close(descriptor)
        return String(decoding: path.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Removes the name.
    package static func remove(_ path: String) throws(BlockError) {
        // SAFETY: the C function reads the path, which lives for the call.
        if unsafe unlink(path) != 0 { throw BlockError(errno: errno, "Could not remove '\(path)'") }
    }

    /// What tells the file of that name from others, whatever names it has; nil when there is none.
    package static func identity(ofFileNamed path: String) -> String? {
        var status = stat()
        // SAFETY: the C function reads the path and writes the structure, which both live for the call.
        guard unsafe stat(path, &status) == 0 else { return nil }
        return "\(status.st_dev):\(status.st_ino)"
    }

    /// Bytes that the file of that name takes on disk; nil when there is none.
    package static func allocatedSize(ofFileNamed path: String) -> Int? {
        var status = stat()
        // SAFETY: as above.
        guard unsafe stat(path, &status) == 0 else { return nil }
        return Int(status.st_blocks) * 512
    }
}
