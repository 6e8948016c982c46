import Foundation
import StrataTesting

/// Runs the same command line with qemu-img and with our binary under the same name, each in a directory of its own.
struct ToolPair {
    struct Outcome: Equatable, CustomStringConvertible {
        var status: Int32
        var output: String
        var errors: String
        var description: String { "status \(status)\n--- stdout\n\(output)--- stderr\n\(errors)" }
    }

    static let qemu = "/usr/bin/qemu-img"

    /// The executable that was built together with the tests.
    static let binary = URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath().deletingLastPathComponent()
        .appendingPathComponent("strata").path

    let root: URL
    /// Where qemu-img works, and where ours does.
    var theirs: URL { root.appendingPathComponent("theirs") }
    var ours: URL { root.appendingPathComponent("ours") }
    private var link: URL { root.appendingPathComponent("qemu-img") }
    private var ioLink: URL { root.appendingPathComponent("qemu-io") }
    /// Ours, under the name of theirs.
    var program: URL { link }

    /// - Parameter folder: where the two directories are made.
    init(in folder: URL = FileManager.default.temporaryDirectory) throws {
        root = folder.appendingPathComponent("img-\(UUID().uuidString)")
        for directory in [root, theirs, ours] { try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true) }
        for link in [link, ioLink] { try FileManager.default.createSymbolicLink(atPath: link.path, withDestinationPath: Self.binary) }
    }

    func remove() { try? FileManager.default.removeItem(at: root) }

    func runTheirs(_ arguments: [String]) throws -> Outcome { try Self.run(Self.qemu, arguments, in: theirs) }
    func runOurs(_ arguments: [String]) throws -> Outcome { Self.withoutHolders(try Self.run(link.path, arguments, in: ours)) }

    func runOurs(_ arguments: [String], in directory: URL) throws -> Outcome { Self.withoutHolders(try Self.run(link.path, arguments, in: directory)) }

    func runOurIO(_ arguments: [String], in directory: URL) throws -> Outcome { Self.withoutHolders(try Self.run(ioLink.path, arguments, in: directory)) }

    /// Takes images away on both sides.
    func removeImages(_ names: [String]) throws {
        for directory in [theirs, ours] {
            for name in names {
                let path = directory.appendingPathComponent(name).path
                if FileManager.default.fileExists(atPath: path) { try FileManager.default.removeItem(atPath: path) }
            }
        }
    }

    /// Our lock conflicts go on after QEMU's words and say who holds the lock.
    private static func withoutHolders(_ outcome: Outcome) -> Outcome {
        var outcome = outcome
        outcome.errors = outcome.errors.replacing(#/lock: '[^']*' is locked by (process [0-9]+ \([^)]*\)|another node of this process)/#, with: "lock")
        return outcome
    }

    /// Makes the same images in both directories, with qemu's tools.
    func prepare(_ commands: [[String]]) throws {
        for directory in [theirs, ours] {
            for command in commands {
                let tool = command[0] == "io" ? "/usr/bin/qemu-io" : Self.qemu
                let outcome = try Self.run(tool, Array(command.dropFirst(command[0] == "io" ? 1 : 0)), in: directory)
                guard outcome.status == 0 else { throw Failure(text: "\(command): \(outcome)") }
            }
        }
    }

    struct Failure: Error { let text: String }

    static func run(_ program: String, _ arguments: [String], in directory: URL) throws -> Outcome {
        // Only a program that hangs gets to the limit.
        let finished = try StrataTesting.run(program, arguments, in: directory, atMost: .seconds(60))
        // The C library's messages repeat the program as it was called.
        func text(_ text: String) -> String { text.replacing(program, with: "qemu-img") }
        let status: Int32 = switch finished.ending { case .exited(let status): status; case .signalled(let signal): -signal }
        return Outcome(status: status, output: text(finished.text), errors: text(finished.errorText))
    }
}
