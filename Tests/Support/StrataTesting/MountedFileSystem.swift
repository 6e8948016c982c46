import Foundation

/// A file system in a file, mounted for a test. Making one takes the rights of root, loop devices and a kernel that knows the type: where one of them
/// is missing the test fails and says so.
package final class MountedFileSystem: Sendable {
    package let folder: TemporaryFolder
    /// Where its files are.
    package let path: String
    private let device: LoopDevice

    /// - Parameters:
    ///   - type: one whose `mkfs` is installed.
    ///   - byteCount: of the device below.
    ///   - sectorSize: the device's logical block size in bytes, which O_DIRECT then asks for.
    package init(_ type: String, byteCount: Int, _ options: [String] = [], sectorSize: Int = 512) throws {
        folder = try TemporaryFolder()
        path = folder.path("mounted")
        try mustRun("truncate", ["-s", "\(byteCount)", folder.path("device")], atMost: .seconds(30))
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        device = try LoopDevice(over: folder.path("device"), sectorSize: sectorSize)
        let made = try run("mkfs.\(type)", options + ["-q", device.path], atMost: .seconds(60))
        let finished = made.succeeded ? try run("mount", ["-t", type, device.path, path], atMost: .seconds(30)) : made
        guard finished.succeeded else {
            device.detach()
            throw HarnessError("this machine makes and mounts no \(type) (root, a kernel that knows it): \(finished)")
        }
    }

    package func unmount() {
        _ = try? mustRun("umount", [path], atMost: .seconds(30))
        device.detach()
    }
}
