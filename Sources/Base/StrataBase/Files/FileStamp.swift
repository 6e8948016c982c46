import Glibc

/// Tells one file, and one state of its contents, from another.
package struct FileStamp: Hashable, Sendable {
    package let device: UInt64
    package let inode: UInt64
    /// Bytes.
    package let size: Int
    /// Of the last change of contents.
    private let seconds: Int
    private let nanoseconds: Int

    /// Of whatever is at `path` at this moment; nil when nothing is.
    /// - Parameter followsLinks: whether a symbolic link stands for the file that it names.
    package init?(of path: String, followsLinks: Bool = true) {
        var status = stat()
        // SAFETY: the structure is ours, and the string stays NUL-terminated for the time of the call.
        let result = followsLinks ? unsafe stat(path, &status) : unsafe lstat(path, &status)
        guard result == 0 else { return nil }
        device = UInt64(status.st_dev)
        inode = UInt64(status.st_ino)
        size = Int(status.st_size)
        seconds = Int(status.st_mtim.tv_sec)
        nanoseconds = Int(status.st_mtim.tv_nsec)
    }

    /// Whether both are states of the same file.
    package func isSameFile(as other: FileStamp) -> Bool { device == other.device && inode == other.inode }
}
