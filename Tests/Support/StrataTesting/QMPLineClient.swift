import Foundation

/// A QMP client that knows lines and nothing else, so that tests can also send what a well-behaved client would not.
package final class QMPLineClient {
    package struct Refusal: Error, CustomStringConvertible {
        package let errorClass: String
        package let message: String
        package var description: String { "\(errorClass): \(message)" }
    }

    private let socket: UnixSocket
    private var pending: [UInt8] = []
    package private(set) var greeting: JSON = .null
    /// Events that came while something else was awaited, oldest first.
    package private(set) var events: [JSON] = []

    /// Connects and reads the greeting, which has to come within `greetingLimit`. With `negotiate`, command mode is entered too.
    package init(path: String, greetingLimit: Duration = .seconds(60), negotiate: Bool = true) throws {
        guard let socket = UnixSocket(path: path, limit: greetingLimit) else { throw HarnessError("nobody listens at \(path)") }
        self.socket = socket
        greeting = try readLine()
        socket.setLimit(.seconds(60))
        if negotiate { try execute("qmp_capabilities") }
    }

    package func sendLine(_ line: String) throws { try socket.send(Array((line + "\n").utf8)) }

    package func sendBytes(_ bytes: [UInt8]) throws { try socket.send(bytes) }

    /// The next message, whatever it is.
    package func readLine() throws -> JSON {
        while true {
            if let end = pending.firstIndex(of: UInt8(ascii: "\n")) {
                let line = pending[..<end]
                pending.removeFirst(end + 1)
                if line.allSatisfy({ $0 == 0x20 || $0 == 0x0d }) { continue }
                return try JSON(parsing: Data(line))
            }
            let more = try socket.receiveSome(64 << 10)
            guard !more.isEmpty else { throw HarnessError("the monitor closed the connection") }
            pending += more
        }
    }

    /// The next answer; events on the way are kept in `events`.
    package func readAnswer() throws -> JSON {
        while true {
            let message = try readLine()
            guard message["event"] != nil else { return message }
            events.append(message)
        }
    }

    /// True once the peer has closed the connection; messages on the way are dropped.
    package func waitForEnd() throws {
        while try !socket.receiveSome(64 << 10).isEmpty {}
    }

    /// Waits for an event of that name.
    package func event(_ name: String) throws -> JSON {
        while true {
            if let index = events.firstIndex(where: { $0["event"]?.string == name }) { return events.remove(at: index) }
            let message = try readLine()
            guard message["event"] != nil else { throw HarnessError("expected the event \(name), got \(message)") }
            events.append(message)
        }
    }

    /// The events that came while something else was awaited, oldest first; they are not kept any longer.
    package func takeEvents() -> [JSON] {
        defer { events = [] }
        return events
    }

    /// Runs a command and gives back what it returns.
    /// - Parameter files: open files that go along with the message.
    @discardableResult
    package func execute(_ command: String, _ arguments: JSON? = nil, passing files: [Int32] = []) throws -> JSON {
        var request: [String: JSON] = ["execute": .string(command)]
        request["arguments"] = arguments
        try socket.send(Array(try JSON.object(request).encoded()) + [UInt8(ascii: "\n")], passing: files)
        let answer = try readAnswer()
        if let value = answer["return"] { return value }
        throw Refusal(errorClass: answer["error"]?["class"]?.string ?? "?", message: answer["error"]?["desc"]?.string ?? "\(answer)")
    }
}
