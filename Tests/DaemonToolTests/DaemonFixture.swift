import Foundation
import IOCore
import QAPIRuntime
import StrataTesting

/// A folder for the files of one test; removed with the last reference.
final class Scratch: Sendable {
    let path: String

    init() throws {
        let base = FileManager.default.isWritableFile(atPath: "/dev/shm") ? "/dev/shm" : NSTemporaryDirectory()
        path = base + "/strata-daemon-" + UUID().uuidString.prefix(8)
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { path + "/" + name }
    func exists(_ name: String) -> Bool { FileManager.default.fileExists(atPath: file(name)) }

    func write(_ name: String, _ bytes: [UInt8]) throws { try Data(bytes).write(to: URL(fileURLWithPath: file(name))) }
    func read(_ name: String) throws -> [UInt8] { [UInt8](try Data(contentsOf: URL(fileURLWithPath: file(name)))) }
}

/// The program under test, built beside the tests.
let strata = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().appendingPathComponent("strata").path

/// What a finished program has left.
struct Outcome: Sendable {
    let status: Int32
    let output: String
    let complaint: String
}

/// Runs a program to its end.
/// - Parameter directory: where it runs.
func run(_ program: String, _ arguments: [String], in directory: String? = nil, input: String = "") throws -> Outcome {
    let folder = directory.map { URL(fileURLWithPath: $0) }
    let finished = try StrataTesting.run(program, arguments, in: folder, input: Data(input.utf8))
    let status: Int32 = if case .exited(let status) = finished.ending { status } else { -1 }
    return Outcome(status: status, output: finished.text, complaint: finished.errorText)
}

/// Runs our daemon with `--daemonize` to the end of the process in the foreground.
func runInBackground(_ arguments: [String], in directory: String) throws -> Outcome {
    try run(strata, ["daemon", "--daemonize"] + arguments, in: directory)
}

/// Starts our daemon in a folder.
func startDaemon(_ arguments: [String], scratch: Scratch) throws -> ChildProcess {
    try ChildProcess(strata, ["daemon"] + arguments, in: URL(fileURLWithPath: scratch.path))
}

/// A daemon that runs until it is told to end, with its monitor connected.
final class RunningDaemon {
    let process: ChildProcess
    let monitor: MonitorClient

    /// - Parameter arguments: what stands before the monitor's own options, so that all of it is there when the monitor answers.
    init(_ arguments: [String], scratch: Scratch) throws {
        process = try startDaemon(arguments + ["--chardev", "socket,id=qmp,path=qmp.sock,server=on,wait=off", "--monitor", "chardev=qmp"], scratch: scratch)
        monitor = try MonitorClient(connectingTo: scratch.file("qmp.sock"), of: process)
    }

    deinit { process.send(SIGKILL) }

    /// Waits for the end.
    func waitForEnd() throws -> Finished.Ending { try process.wait().ending }
}

struct Complaint: Error, CustomStringConvertible { let description: String }

/// Speaks before it is greeted.
struct EarlyClient {
    private let socket: ConnectedSocket

    init(connectingTo path: String, of process: ChildProcess) throws { socket = try MonitorClient.connect(to: .unix(path: path), of: process) }

    func send(_ text: String) throws {
        guard case .bytes(text.utf8.count) = socket.send(Array(text.utf8), from: 0) else { throw Complaint(description: "cannot send") }
    }

    /// All that comes until the other side hangs up.
    func everything() throws -> String {
        var bytes: [UInt8] = []
        while true {
            var descriptor = pollfd(fd: socket.descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&descriptor, 1, 60_000) > 0 else { throw Complaint(description: "the monitor is silent") }
            let (outcome, chunk) = socket.receive(atMost: 1 << 16)
            guard case .bytes = outcome else { return String(decoding: bytes, as: UTF8.self) }
            bytes += chunk
        }
    }
}

/// A blocking QMP client.
final class MonitorClient {
    private let socket: ConnectedSocket
    private var pending: [UInt8] = []
    private(set) var events: [JSONValue] = []

    /// Connects as soon as somebody listens, and negotiates.
    convenience init(connectingTo path: String, of process: ChildProcess) throws { try self.init(connectingTo: .unix(path: path), of: process) }

    convenience init(connectingTo address: HostAddress, of process: ChildProcess) throws { try self.init(try Self.connect(to: address, of: process)) }

    /// Connects as soon as somebody listens.
    static func connect(to address: HostAddress, of process: ChildProcess) throws -> ConnectedSocket {
        var connected: ConnectedSocket?
        _ = waitUntil {
            connected = try? ConnectedSocket(connectingTo: address)
            return connected != nil || !process.isRunning
        }
        guard let connected else { throw Complaint(description: "the daemon did not open its monitor") }
        return connected
    }

    /// Negotiates on a connection.
    init(_ socket: ConnectedSocket) throws {
        self.socket = socket
        guard try message()["QMP"] != nil else { throw Complaint(description: "no greeting") }
        _ = try execute("qmp_capabilities")
    }

    /// Sends bytes in a connection of their own and reads, without keeping, what comes until `mark` has come.
    static func pour(_ bytes: [UInt8], into path: String, until mark: String) throws {
        let socket = try ConnectedSocket(connectingTo: .unix(path: path))
        var sent = 0
        var tail = ""
        while !tail.contains(mark) {
            var descriptor = pollfd(fd: socket.descriptor, events: Int16(sent < bytes.count ? POLLIN | POLLOUT : POLLIN), revents: 0)
            guard poll(&descriptor, 1, 20000) > 0 else { throw Complaint(description: "the monitor is silent") }
            if descriptor.revents & Int16(POLLOUT) != 0, case .bytes(let count) = socket.send(bytes, from: sent) { sent += count }
            if descriptor.revents & Int16(POLLIN | POLLHUP) != 0 {
                let (outcome, chunk) = socket.receive(atMost: 1 << 16)
                guard case .bytes = outcome else { throw Complaint(description: "the monitor has hung up") }
                tail = String((tail + String(decoding: chunk, as: UTF8.self)).suffix(4096))
            }
        }
    }

    /// Runs a command; its answer, with the events on the way put aside.
    func execute(_ command: String, _ arguments: JSONValue = [:]) throws -> JSONValue {
        let request: JSONValue = ["execute": .string(command), "arguments": arguments]
        var bytes = Array(request.text().utf8)
        while !bytes.isEmpty {
            try wait(for: POLLOUT)
            guard case .bytes(let count) = socket.send(bytes) else { throw Complaint(description: "the monitor takes no more") }
            bytes.removeFirst(count)
        }
        while true {
            let answer = try message()
            if answer["event"] != nil { events.append(answer) } else { return answer }
        }
    }

    /// The next message from the daemon.
    func message() throws -> JSONValue {
        while true {
            if let end = pending.firstIndex(of: UInt8(ascii: "\n")) {
                let line = String(decoding: pending[..<end], as: UTF8.self)
                pending.removeFirst(end + 1)
                return try JSONValue(parsing: line)
            }
            try wait(for: POLLIN)
            let (outcome, bytes) = socket.receive(atMost: 1 << 16)
            guard case .bytes = outcome else { throw Complaint(description: "the monitor has hung up") }
            pending += bytes
        }
    }

    private func wait(for events: Int32) throws {
        var descriptor = pollfd(fd: socket.descriptor, events: Int16(events), revents: 0)
        guard poll(&descriptor, 1, 20000) > 0 else { throw Complaint(description: "the monitor is silent") }
    }
}
