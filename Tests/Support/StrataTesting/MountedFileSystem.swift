import Foundation

/// A file system in a file, mounted for a test. Making one takes the rights of root, loop devices and a kernel that knows the type: where one of them
/// is missing the test fails and says so.
package final class MountedFileSystem: Sendable {
    package let folder: TemporaryFolder
    /// Where its files are.
    package let path: String

    /// - Parameters:
    ///   - type: one whose `mkfs` is installed.
    ///   - byteCount: of the device below.
    package init(_ type: String, byteCount: Int, _ options: [String] = []) throws {
        folder = try TemporaryFolder()
        path = folder.path("mounted")
        try mustRun("truncate", ["-s", "\(byteCount)", folder.path("device")], atMost: .seconds(30))
        try mustRun("mkfs.\(type)", options + ["-q", folder.path("device")], atMost: .seconds(60))
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        let finished = try run("mount", ["-o", "loop", "-t", type, folder.path("device"), path], atMost: .seconds(30))
        guard finished.succeeded else { throw HarnessError("this machine mounts no \(type) (root, loop devices): \(finished)") }
    }

    package func unmount() {
        // The loop device goes with it.
        _ = try? mustRun("umount", [path], atMost: .seconds(30))
    }
}
