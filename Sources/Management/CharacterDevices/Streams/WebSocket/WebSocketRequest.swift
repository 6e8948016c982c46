import QAPIRuntime
import StrataBase

/// The opening of a websocket, the server's side: an HTTP request comes in, and what to answer goes out. Source: RFC 6455, sections 4.2 and 4.4.
struct WebSocketRequest {
    /// Longer requests are refused, in bytes.
    static let limit = 4096

    enum Verdict: Hashable {
        case incomplete
        /// Answer, and go on with frames. `rest` is what came behind the request.
        case accepted(answer: [UInt8], rest: [UInt8])
        /// Answer, and end.
        case refused(answer: [UInt8])
    }

    private var bytes: [UInt8] = []

    mutating func receive(_ chunk: [UInt8]) -> Verdict {
        bytes += chunk
        let end: [UInt8] = Array("\r\n\r\n".utf8)
        guard let place = bytes.indices.first(where: { bytes[$0...].starts(with: end) }), place <= Self.limit else {
            return bytes.count > Self.limit ? .refused(answer: Self.refusal("431 Request Header Fields Too Large")) : .incomplete
        }
        let rest = Array(bytes[(place + end.count)...])
        // A byte that is no UTF-8 becomes a sign that no accepted word has.
        let lines = String(decoding: bytes[..<place], as: UTF8.self).split(separator: "\r\n", omittingEmptySubsequences: false).map(String.init)
        let words = lines[0].split(separator: " ", omittingEmptySubsequences: false)
        guard words.count == 3, words[0] == "GET", words[2] == "HTTP/1.1" else { return .refused(answer: Self.badRequest) }
        guard words[1] == "/" else { return .refused(answer: Self.refusal("404 Not Found")) }
        guard let answer = Self.answer(to: Self.fields(lines.dropFirst())) else { return .refused(answer: Self.badRequest) }
        return .accepted(answer: answer, rest: rest)
    }

    /// The header's fields by their names in small letters; of several of a name, the values with commas between them.
    private static func fields(_ lines: ArraySlice<String>) -> [String: String] {
        var fields: [String: String] = [:]
        for line in lines {
            guard let colon = line.firstIndex(of: ":") else { continue }
            let value = trimmed(line[line.index(after: colon)...])
            fields[line[..<colon].lowercased(), default: ""] += fields[line[..<colon].lowercased()] == nil ? value : "," + value
        }
        return fields
    }

    private static func trimmed(_ text: Substring) -> String {
        var text = text
        while text.first == " " || text.first == "\t" { text.removeFirst() }
        while text.last == " " || text.last == "\t" { text.removeLast() }
        return String(text)
    }

    private static func list(_ value: String?) -> [String] { value?.split(separator: ",").map { trimmed($0) } ?? [] }

    /// - Returns: nil when the request is not one for a websocket that carries bytes.
    private static func answer(to fields: [String: String]) -> [UInt8]? {
        guard fields["host"] != nil, fields["sec-websocket-version"] == "13", let key = fields["sec-websocket-key"],
            Base64.decode(Array(key.utf8))?.count == 16,
            list(fields["connection"]).contains(where: { $0.lowercased() == "upgrade" }),
            list(fields["upgrade"]).contains(where: { $0.lowercased() == "websocket" })
        else { return nil }
        let protocols = list(fields["sec-websocket-protocol"])
        // Who asks for protocols gets one of them: ours is called "binary".
        guard protocols.isEmpty || protocols.contains("binary") else { return nil }
        var lines = [
            "HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: \(acceptance(of: key))",
        ]
        if !protocols.isEmpty { lines.append("Sec-WebSocket-Protocol: binary") }
        return message(lines)
    }

    /// What proves that the request was understood (section 4.2.2, step 5.4).
    static func acceptance(of key: String) -> String { Base64.encode(SHA1.hash(Array((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").utf8))) }

    private static let badRequest = message(["HTTP/1.1 400 Bad Request", "Connection: close", "Sec-WebSocket-Version: 13", "Content-Length: 0"])

    private static func refusal(_ status: String) -> [UInt8] { message(["HTTP/1.1 \(status)", "Connection: close", "Content-Length: 0"]) }

    private static func message(_ lines: [String]) -> [UInt8] { Array((lines.joined(separator: "\r\n") + "\r\n\r\n").utf8) }
}
