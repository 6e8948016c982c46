import Foundation

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

struct ProgramFailure: Error, CustomStringConvertible { let description: String }

/// Runs a program and returns what it printed. Its output goes through a file, which no other program can keep open.
@discardableResult
func run(_ program: String, _ arguments: [String], environment: [String: String]? = nil) throws -> String {
    let output = try Scratch()
    let log = URL(fileURLWithPath: output.file("log"))
    try Data().write(to: log)
    let process = Process()
    process.executableURL = URL(fileURLWithPath: program)
    process.arguments = arguments
    if let environment { process.environment = environment }
    process.standardInput = FileHandle.nullDevice
    process.standardOutput = try FileHandle(forWritingTo: log)
    process.standardError = process.standardOutput
    try process.run()
    process.waitUntilExit()
    let text = String(decoding: try Data(contentsOf: log), as: UTF8.self)
    guard process.terminationStatus == 0 else {
        throw ProgramFailure(description: "\(program) \(arguments.joined(separator: " ")) ended with \(process.terminationStatus): \(text)")
    }
    return text
}
