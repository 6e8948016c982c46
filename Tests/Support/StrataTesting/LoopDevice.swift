import Foundation

/// A block device of the kernel's over a file. Making one takes the rights of root and a kernel with loop devices: where either is missing the test
/// fails and says so.
package final class LoopDevice: Sendable {
    package let path: String

    /// - Parameter sectorSize: the device's logical block size in bytes.
    package init(over file: String, sectorSize: Int = 512) throws {
        let finished = try run("losetup", ["--find", "--show", "--sector-size", "\(sectorSize)", file], atMost: .seconds(30))
        guard finished.succeeded else {
            throw HarnessError("this machine gives no loop device, which tests of block devices need (root, and /dev/loop-control): \(finished)")
        }
        path = finished.text.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    package func detach() {
        // A device that stays would be in the way of every later test on the machine.
        _ = try? mustRun("losetup", ["--detach", path], atMost: .seconds(30))
    }
}
