import Foundation
import Testing

@testable import TraceRuntime

/// Events are state of the process, so that these tests take turns, and each has events of its own.
@Suite("tracing", .serialized)
struct TraceRuntimeTests {
    private static func makeEvent(_ name: String, slot: UInt16 = 7, isAvailable: Bool = true) -> TraceEvent {
        TraceEvent(
            name, slot: slot, isAvailable: isAvailable,
            arguments: [.init("count", .signed), .init("cookie", .unsigned), .init("done", .boolean), .init("name", .string), .init("at", .pointer)],
            pieces: [
                .text("count "), .value(.init(.decimal, width: 4)), .text(" cookie "), .value(.init(.lowercaseHex, width: 6, isZeroPadded: true)),
                .text(" done "), .value(.init(.decimal)), .text(" name '"), .value(.init(.string)), .text("' at "), .value(.init(.pointer)),
            ])
    }

    /// What `body` makes the output write.
    private func output(_ format: TraceFormat, _ body: () throws -> Void) throws -> [String] {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("trace-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: file) }
        try TraceOutput.write(toFile: file.path, format)
        try body()
        TraceOutput.writeToStandardError(.text)
        return try String(contentsOf: file, encoding: .utf8).split(separator: "\n").map(String.init)
    }

    @Test("a line for people says who, when, what, and follows the format")
    func text() throws {
        let event = Self.makeEvent("text_event")
        TraceRegistry.register([TraceModule("text", [event])])
        let before = Date().timeIntervalSince1970
        let lines = try output(.text) {
            TraceOutput.record(event) { $0.add(-5); $0.add(0xabc as UInt64); $0.add(true); $0.add("a\nb\u{1b}[31mé"); $0.add(event) }
        }
        let address = String(UInt(bitPattern: ObjectIdentifier(event)), radix: 16)
        let parts = try #require(lines.first).split(separator: ":", maxSplits: 1)
        #expect(parts[1] == "text_event count   -5 cookie 000abc done 1 name 'a\\x0ab\\x1b[31mé' at 0x\(address)")
        let stamp = parts[0].split(separator: "@")
        #expect(Int(stamp[0]) != nil)
        let time = try #require(Double(stamp[1]))
        #expect(time >= before - 1 && time <= before + 60)
        #expect(stamp[1].split(separator: ".")[1].count == 6)
    }

    @Test("a JSON line is JSON, with numbers exact and strings as they are")
    func json() throws {
        let event = Self.makeEvent("json_event")
        TraceRegistry.register([TraceModule("json", [event])])
        let lines = try output(.json) {
            TraceOutput.record(event) { $0.add(Int.min); $0.add(UInt64.max); $0.add(false); $0.add("\"\\\n\u{1}é"); $0.add(event) }
        }
        let line = try #require(lines.first)
        #expect(line.contains("\"count\": -9223372036854775808, \"cookie\": 18446744073709551615, \"done\": false"))
        let object = try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
        #expect(object["event"] as? String == "json_event")
        #expect((object["data"] as? [String: Any])?["name"] as? String == "\"\\\n\u{1}é")
        #expect((object["timestamp"] as? [String: Any])?["microseconds"] as? Int != nil)
    }

    @Test("an event that shares its slot with one that is on stays off, and the slot is off when all are")
    func sharedSlot() {
        let (one, two) = (Self.makeEvent("shared_one", slot: 99), Self.makeEvent("shared_two", slot: 99))
        TraceRegistry.register([TraceModule("shared", [one, two])])
        TraceRegistry.set([one], on: true)
        #expect(TraceSlots.isOn(99) && one.isOn && !two.isOn)
        TraceRegistry.set([two], on: true)
        TraceRegistry.set([one], on: false)
        #expect(TraceSlots.isOn(99) && !one.isOn && two.isOn)
        TraceRegistry.set([two], on: false)
        #expect(!TraceSlots.isOn(99))
    }

    @Test("an event that was declared with disable cannot be turned on")
    func unavailable() {
        let event = Self.makeEvent("gone", slot: 100, isAvailable: false)
        TraceRegistry.register([TraceModule("gone", [event])])
        TraceRegistry.set([event], on: true)
        #expect(!event.isOn && !TraceSlots.isOn(100))
        #expect(TraceRegistry.events { $0.hasPrefix("gon") }.map(\.name) == ["gone"])
    }

    @Test("events of several threads are all there, each thread's in its order")
    func threads() async throws {
        let event = TraceEvent(
            "counted", slot: 101, isAvailable: true, arguments: [.init("lane", .signed), .init("index", .signed)],
            pieces: [.value(.init(.decimal)), .text(" "), .value(.init(.decimal))])
        TraceRegistry.register([TraceModule("counted", [event])])
        let lines = try output(.text) {
            DispatchQueue.concurrentPerform(iterations: 4) { lane in
                for index in 0..<5000 { TraceOutput.record(event) { $0.add(lane); $0.add(index) } }
            }
        }
        var next = [0, 0, 0, 0]
        for line in lines {
            let words = try #require(line.split(separator: ":").last).split(separator: " ")
            let (lane, index) = (try #require(Int(words[1])), try #require(Int(words[2])))
            #expect(index == next[lane])
            next[lane] += 1
        }
        #expect(next == [5000, 5000, 5000, 5000])
    }

    @Test("a reader that takes nothing delays nobody: what does not fit is counted, and the output says how much is missing")
    func slowReader() throws {
        let event = TraceEvent(
            "stalled", slot: 102, isAvailable: true, arguments: [.init("text", .string)], pieces: [.value(.init(.string))])
        TraceRegistry.register([TraceModule("stalled", [event])])
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("trace-\(UUID().uuidString)").path
        try #require(mkfifo(path, 0o600) == 0)
        defer { unlink(path) }
        let reader = open(path, O_RDONLY | O_NONBLOCK)
        try TraceOutput.write(toFile: path, .text)
        let filler = String(repeating: "x", count: 4000)
        let count = 4 * TraceOutput.capacity / filler.utf8.count
        for _ in 0..<count { TraceOutput.record(event) { $0.add(filler) } }
        // The other end reads now.
        _ = fcntl(reader, F_SETFL, 0)
        let collector = Thread.collect(reader)
        TraceOutput.writeToStandardError(.text)
        let text = collector()
        let written = text.split(separator: "\n").filter { $0.contains(":stalled ") }.count
        let missing = text.split(separator: "\n").filter { $0.contains(":trace_events_lost ") }.compactMap { line in
            line.split(separator: " ").dropFirst().first.flatMap { Int($0) }
        }.reduce(0, +)
        #expect(missing > 0)
        #expect(written + missing == count)
    }
}

extension Thread {
    /// Reads a descriptor to its end on a thread of its own; the function that is returned waits for it.
    fileprivate static func collect(_ descriptor: Int32) -> () -> String {
        let queue = DispatchQueue(label: "collector")
        nonisolated(unsafe) var data = Data()
        queue.async { data = (try? FileHandle(fileDescriptor: descriptor, closeOnDealloc: true).readToEnd()) ?? Data() }
        return { queue.sync { String(decoding: data, as: UTF8.self) } }
    }
}
