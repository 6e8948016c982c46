package import Foundation

/// How a process has a file open, as the kernel tells it: `/proc/PID/fdinfo` and `/proc/locks`.
package struct OpenFiles: Equatable, Sendable, CustomStringConvertible {
    /// One word per descriptor: `r`, `w` or `rw`; sorted.
    package var modes: [String] = []
    /// The image locks held through these descriptors: `read`, `write`, `write-unchanged` and `resize` for a permission in use, the same with `!`
    /// in front for one that is not shared.
    package var locks: Set<String> = []

    private static let names = ["read", "write", "write-unchanged", "resize"]

    /// `r` and `rw` for the descriptor, then the locks, or `-` for none.
    package var description: String {
        let all = Self.names + Self.names.map { "!\($0)" }
        let held = all.filter(locks.contains)
        return "\(modes.isEmpty ? "closed" : modes.joined(separator: "+")) \(held.isEmpty ? "-" : held.joined(separator: ","))"
    }

    package init() {}

    /// - Parameter path: the file as the links in `/proc/PID/fd` name it.
    package init(of process: pid_t, path: String) throws {
        let folder = "/proc/\(process)/fdinfo"
        for number in try FileManager.default.contentsOfDirectory(atPath: folder) {
            guard let target = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(process)/fd/\(number)"), target == path,
                let text = try? String(contentsOfFile: "\(folder)/\(number)", encoding: .utf8)
            else { continue }
            for line in text.split(separator: "\n") {
                let words = line.split { $0 == " " || $0 == "\t" }
                if words.first == "flags:", let flags = Int(words[1], radix: 8) { modes.append(["r", "w", "rw", "rw"][flags & 3]) }
                if words.first == "lock:", words.count >= 9, let start = Int(words[7]), let end = Int(words[8]) {
                    for byte in start...end { locks.insert(Self.name(of: byte)) }
                }
            }
        }
        modes.sort()
    }

    private static func name(of byte: Int) -> String {
        switch byte {
        case 100..<104: names[byte - 100]
        case 200..<204: "!" + names[byte - 200]
        default: "byte \(byte)"
        }
    }

    /// The bytes of a file that anybody holds locks on, from `/proc/locks`.
    package static func lockedBytes(of path: String) throws -> Set<Int> {
        var status = stat()
        guard stat(path, &status) == 0 else { throw HarnessError("no file \(path)") }
        var bytes: Set<Int> = []
        for line in try String(contentsOfFile: "/proc/locks", encoding: .utf8).split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count >= 8, words[5].hasSuffix(":\(status.st_ino)"), let start = Int(words[6]), let end = Int(words[7]) else { continue }
            bytes.formUnion(start...end)
        }
        return bytes
    }

    /// Waits until nobody holds a lock on a file any more. A process that was killed has been reaped a little before the kernel closes what its
    /// requests in flight still used.
    package static func waitUntilUnlocked(_ path: String) throws {
        guard try waitUntil({ try lockedBytes(of: path).isEmpty }) else { throw HarnessError("\(path) is still locked: \(try lockedBytes(of: path))") }
    }
}
