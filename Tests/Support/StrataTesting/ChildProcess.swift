package import Foundation
import Synchronization

/// What a process left: how it ended and what it printed.
package struct Finished: Sendable, CustomStringConvertible {
    package enum Ending: Equatable, Sendable {
        case exited(Int32)
        case signalled(Int32)
    }

    package let command: String
    package let ending: Ending
    package let output: Data
    package let errors: Data

    package var succeeded: Bool { ending == .exited(0) }
    package var text: String { String(decoding: output, as: UTF8.self) }
    package var errorText: String { String(decoding: errors, as: UTF8.self) }

    package var description: String {
        "`\(command)` \(ending)\n\(text.prefix(4000))\n\(errorText.prefix(4000))"
    }
}

/// A harness failure, in words.
package struct HarnessError: Error, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}

/// A program that runs beside the test. Its output goes to files without names, not to pipes: a grandchild that keeps them open (a daemon
/// that put itself in the background) holds nobody up. It never outlives this object.
package final class ChildProcess: Sendable {
    /// The C library has it (since 2.34), and its header hides it from Swift.
    private static let addCloseFrom: @convention(c) (UnsafeMutablePointer<posix_spawn_file_actions_t>, Int32) -> Int32 = unsafeBitCast(
        dlsym(nil, "posix_spawn_file_actions_addclosefrom_np"), to: (@convention(c) (UnsafeMutablePointer<posix_spawn_file_actions_t>, Int32) -> Int32).self)

    /// So is this one (since 2.29).
    private static let addChangeFolder: @convention(c) (UnsafeMutablePointer<posix_spawn_file_actions_t>, UnsafePointer<CChar>) -> Int32 = unsafeBitCast(
        dlsym(nil, "posix_spawn_file_actions_addchdir_np"), to: (@convention(c) (UnsafeMutablePointer<posix_spawn_file_actions_t>, UnsafePointer<CChar>) -> Int32).self)

    package let identifier: pid_t
    package let command: String
    private let output: FileHandle, errors: FileHandle?
    /// Our end of its standard input, if it reads what the test types.
    private let keyboard = Mutex<Int32>(-1)
    private let status = Mutex<Int32?>(nil)
    private let ended = DispatchSemaphore(value: 0)

    /// - Parameters:
    ///   - program: an absolute path, or a name to look up in PATH.
    ///   - folder: the working directory.
    ///   - input: what the program reads on standard input; nil for what the test types until `closeInput`.
    ///   - joinsErrors: what it prints on standard error goes, in order, to where its output goes.
    ///   - inheritsDescriptors: the program gets every open descriptor of this process that is not closed on exec.
    package init(
        _ program: String, _ arguments: [String], in folder: URL? = nil, environment: [String: String] = [:], input: Data? = Data(),
        joinsErrors: Bool = false, inheritsDescriptors: Bool = false
    ) throws {
        let output = try Self.namelessFile(), errors = joinsErrors ? nil : try Self.namelessFile()
        let source: FileHandle
        if let input {
            source = try Self.namelessFile()
            try source.write(contentsOf: input)
            try source.seek(toOffset: 0)
        } else {
            let (near, far) = try Self.socketPair()
            source = far
            keyboard.withLock { $0 = near }
        }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, source.fileDescriptor, 0)
        posix_spawn_file_actions_adddup2(&actions, output.fileDescriptor, 1)
        posix_spawn_file_actions_adddup2(&actions, (errors ?? output).fileDescriptor, 2)
        // Nothing else is handed on: a server that held the far end of somebody's pipe would keep him waiting for its end.
        if !inheritsDescriptors { _ = Self.addCloseFrom(&actions, 3) }
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // The child starts with no signal blocked or ignored, whatever the test runner did to its own.
        var none = sigset_t(), all = sigset_t()
        sigemptyset(&none)
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))

        let variables = ProcessInfo.processInfo.environment.merging(try QuickKeys.variables(for: program)) { $1 }.merging(environment) { $1 }.map { "\($0)=\($1)" }
        if let folder { _ = Self.addChangeFolder(&actions, folder.path) }
        var words = ([program] + arguments).map { strdup($0) } + [nil]
        var settings = variables.map { strdup($0) } + [nil]
        defer { (words + settings).forEach { free($0) } }
        var identifier: pid_t = 0
        let failure = posix_spawnp(&identifier, program, &actions, &attributes, &words, &settings)
        guard failure == 0 else { throw HarnessError("cannot start \(program): \(String(cString: strerror(failure)))") }

        self.identifier = identifier
        self.output = output
        self.errors = errors
        command = ([(program as NSString).lastPathComponent] + arguments).joined(separator: " ")
        let reaper = Thread { [self, identifier] in
            var status: Int32 = 0
            // Noted before the process is reaped, so that nobody sends a signal to a number that belongs to somebody else by then.
            var information = siginfo_t()
            while waitid(P_PID, id_t(identifier), &information, WEXITED | WNOWAIT) != 0 && errno == EINTR {}
            self.status.withLock { shared in
                while waitpid(identifier, &status, 0) < 0 && errno == EINTR {}
                shared = status
            }
            ended.signal()
        }
        reaper.stackSize = 128 << 10
        reaper.start()
    }

    deinit { closeInput() }

    /// Types into a program that was started without `input`.
    package func type(_ text: String) throws {
        try keyboard.withLock { descriptor in
            let bytes = Array(text.utf8)
            guard descriptor >= 0, Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count else { throw HarnessError("\(command) reads no more") }
        }
    }

    /// The program comes to the end of its input.
    package func closeInput() {
        keyboard.withLock { descriptor in
            if descriptor >= 0 { close(descriptor) }
            descriptor = -1
        }
    }

    package var isRunning: Bool { status.withLock { $0 == nil } }

    package func send(_ signal: Int32) {
        status.withLock { if $0 == nil { _ = kill(identifier, signal) } }
    }

    /// Waits for the end. A process that is still running after `limit` is killed, and that is an error.
    @discardableResult
    package func wait(atMost limit: Duration = .seconds(60)) throws -> Finished {
        let inTime = ended.wait(timeout: .now() + .milliseconds(Int(limit / .milliseconds(1)))) == .success
        if !inTime {
            send(SIGKILL)
            ended.wait()
        }
        ended.signal()  // for whoever waits next
        let finished = try result()
        guard inTime else { throw HarnessError("still running after \(limit): \(finished)") }
        return finished
    }

    /// What it has printed so far.
    package func outputSoFar() throws -> (output: String, errors: String) {
        (String(decoding: try Self.contents(of: output), as: UTF8.self), String(decoding: try Self.contents(of: errors), as: UTF8.self))
    }

    private func result() throws -> Finished {
        let status = self.status.withLock { $0 ?? 0 }
        let signal = status & 0x7f
        return Finished(
            command: command, ending: signal == 0 ? .exited(status >> 8 & 0xff) : .signalled(signal),
            output: try Self.contents(of: output), errors: try Self.contents(of: errors))
    }

    private static func socketPair() throws -> (near: Int32, far: FileHandle) {
        var ends: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
            throw HarnessError("cannot make a pair of sockets: \(String(cString: strerror(errno)))")
        }
        return (ends[0], FileHandle(fileDescriptor: ends[1], closeOnDealloc: true))
    }

    private static func contents(of file: FileHandle?) throws -> Data {
        guard let file else { return Data() }
        // Through a fresh read position: the child shares the one of its own descriptor.
        var data = Data(), chunk = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = pread(file.fileDescriptor, &chunk, chunk.count, off_t(data.count))
            guard count > 0 else { return data }
            data.append(contentsOf: chunk[..<count])
        }
    }

    private static func namelessFile() throws -> FileHandle {
        var name = Array((NSTemporaryDirectory() + "/strata-test-output.XXXXXX").utf8CString)
        let descriptor = mkstemp(&name)
        guard descriptor >= 0 else { throw HarnessError("cannot make a temporary file: \(String(cString: strerror(errno)))") }
        unlink(name)
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        return FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
    }
}

/// Runs a program to its end.
package func run(
    _ program: String, _ arguments: [String], in folder: URL? = nil, environment: [String: String] = [:], input: Data = Data(),
    joinsErrors: Bool = false, atMost limit: Duration = .seconds(120)
) throws -> Finished {
    try ChildProcess(program, arguments, in: folder, environment: environment, input: input, joinsErrors: joinsErrors).wait(atMost: limit)
}

/// Runs a program that must succeed, with status 0 or one of `allowedStatus`; anything else is a harness error that shows what it printed.
@discardableResult
package func mustRun(
    _ program: String, _ arguments: [String], in folder: URL? = nil, environment: [String: String] = [:], input: Data = Data(),
    joinsErrors: Bool = false, allowedStatus: Set<Int32> = [0], atMost limit: Duration = .seconds(120)
) throws -> Finished {
    let finished = try run(program, arguments, in: folder, environment: environment, input: input, joinsErrors: joinsErrors, atMost: limit)
    guard case .exited(let status) = finished.ending, allowedStatus.contains(status) else { throw HarnessError("\(finished)") }
    return finished
}

/// Waits until `condition` holds, looking every few milliseconds; false if it did not within `limit`.
package func waitUntil(atMost limit: Duration = .seconds(20), _ condition: () throws -> Bool) rethrows -> Bool {
    let deadline = ContinuousClock.now + limit
    while true {
        if try condition() { return true }
        if ContinuousClock.now > deadline { return false }
        usleep(2000)
    }
}
