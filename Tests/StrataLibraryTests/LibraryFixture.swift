import Foundation
import StrataTesting

/// A folder for the files of one test; removed with the last reference.
final class Scratch: Sendable {
    let path: String

    init() throws {
        let base = FileManager.default.isWritableFile(atPath: "/dev/shm") ? "/dev/shm" : NSTemporaryDirectory()
        path = base + "/strata-library-" + UUID().uuidString.prefix(8)
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { path + "/" + name }

    /// An empty raw disk.
    func disk(_ name: String, byteCount: Int) -> String {
        _ = FileManager.default.createFile(atPath: file(name), contents: nil)
        truncate(file(name), byteCount)
        return file(name)
    }
}

/// Runs a program, which must succeed, and returns what it printed.
@discardableResult
func run(_ program: String, _ arguments: [String], atMost limit: Duration = .seconds(120)) throws -> String {
    try mustRun(program, arguments, joinsErrors: true, atMost: limit).text
}
