internal import CStrataLinux
import Glibc
import StrataBase

/// Who holds a lock on a byte of a file.
///
/// The kernel does not say it when asked for the lock (locks of open files belong to no process), but lists in `/proc/PID/fdinfo` which locks each
/// descriptor holds. Processes of other users are seen only with the right to look into them.
struct LockHolder: CustomStringConvertible {
    let process: Int32
    let command: String

    var description: String {
        process == getpid() ? "another node of this process" : "process \(process) (\(command))"
    }

    /// - Parameter byte: the position of the locked byte in the file.
    static func find(of file: HostFile, byte: Int) -> LockHolder? {
        guard let status = try? file.status() else { return nil }
        // This process first, and then the others in the order of their numbers.
        for process in [getpid()] + numbers(in: "/proc").filter({ $0 != getpid() }) {
            for descriptor in numbers(in: "/proc/\(process)/fdinfo") where !(process == getpid() && descriptor == file.descriptor) {
                guard let text = try? SmallFile.read("/proc/\(process)/fdinfo/\(descriptor)", limit: 1 << 20), locks(text, byte),
                    isSame("/proc/\(process)/fd/\(descriptor)", status)
                else { continue }
                let name = (try? SmallFile.read("/proc/\(process)/comm", limit: 4096)) ?? []
                return LockHolder(process: process, command: String(decoding: name.prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self))
            }
        }
        return nil
    }

    /// Whether one of the lines `lock: 1: OFDLCK ADVISORY READ -1 00:1b:42 100 100` covers the byte.
    private static func locks(_ text: [UInt8], _ byte: Int) -> Bool {
        String(decoding: text, as: UTF8.self).split(separator: "\n").contains { line in
            let words = line.split { $0 == " " || $0 == "\t" }
            guard words.first == "lock:", words.count >= 9, let start = Int(words[7]) else { return false }
            let end = words[8] == "EOF" ? Int.max : Int(words[8]) ?? -1
            return start <= byte && byte <= end
        }
    }

    private static func isSame(_ path: String, _ status: HostFile.Status) -> Bool {
        var other = stat()
        // SAFETY: the call reads the path, which lives for the call, and fills `other`.
        return unsafe stat(path, &other) == 0 && UInt64(other.st_dev) == status.device && UInt64(other.st_ino) == status.inode
    }

    /// The names in a directory that are numbers.
    private static func numbers(in path: String) -> [Int32] {
        guard let directory = unsafe opendir(path) else { return [] }
        defer { unsafe closedir(directory) }
        var found: [Int32] = []
        while let entry = unsafe readdir(directory) {
            // SAFETY: the entry is valid until the next call, and its name ends in NUL.
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                unsafe pointer.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
            }
            if let number = Int32(name) { found.append(number) }
        }
        return found.sorted()
    }
}
