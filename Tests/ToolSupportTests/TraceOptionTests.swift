import Foundation
import Testing
import ToolSupport
import TraceRuntime

/// What is on belongs to the process: these tests take turns, and leave everything off.
@Suite("trace options", .serialized)
struct TraceOptionTests {
    private func apply(_ texts: String...) throws(ToolFailure) { try TraceOptions.apply(texts, tool: "tool") }

    private func areOn(_ names: String...) -> [Bool] { names.map { TraceRegistry.event(named: $0)?.isOn ?? false } }

    private func allOff() throws { try apply("-*") }

    @Test("patterns turn events on and off in the order in which they are given")
    func order() throws {
        defer { try? allOff() }
        try apply("blk_request_*", "-blk_request_enter", "enable=bdrv_resize")
        #expect(areOn("blk_request_begin", "blk_request_enter", "blk_request_end", "bdrv_resize", "bdrv_flush_begin") == [true, false, true, true, false])
        try apply("-*", "*_end,enable=-bdrv_*")
        #expect(areOn("blk_request_begin", "blk_request_end", "bdrv_flush_end", "graph_change_end") == [false, true, false, true])
    }

    @Test("a file holds a pattern on each line, with comments")
    func file() throws {
        defer { try? allOff() }
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("events-\(UUID().uuidString)").path
        try "# all\n\n  bdrv_*  \r\n-bdrv_drain_*\n".write(toFile: path, atomically: true, encoding: .utf8)
        defer { try? FileManager.default.removeItem(atPath: path) }
        try apply("events=\(path)")
        #expect(areOn("bdrv_resize", "bdrv_drain_begin", "blk_request_begin") == [true, false, false])
    }

    @Test("what is wrong is named", arguments: [
        ("foo=bar", "Invalid parameter 'foo'"), ("bdrv_*,format=xml", "Invalid parameter 'format': 'xml' is neither 'text' nor 'json'"),
        ("file=/nonexistent/x", "Error opening logfile /nonexistent/x: No such file or directory"),
        ("events=/nonexistent/x", "Could not open '/nonexistent/x': No such file or directory"),
    ])
    func refusals(text: String, message: String) {
        let error = #expect(throws: ToolFailure.self) { try apply(text) }
        #expect(error?.message == message)
        #expect(areOn("bdrv_resize") == [false])
    }

    private enum Key: OptionKey { case help, cache, trim }

    @Test("every command takes --trace, and -T where it means nothing else; shortened options stay what they were")
    func everywhere() throws {
        let plain = ArgumentParser<Key>([.init(.trim, "t", "trim", help: "")])
        #expect(try plain.parse(["-T", "a", "x", "--trace=b", "-tTc", "--trace", "d"]).traces == ["a", "b", "c", "d"])
        #expect(try plain.parse(["--tr"]).contains(.trim))
        #expect(throws: ArgumentError("option requires an argument -- 'T'")) { try plain.parse(["-T"]) }
        #expect(throws: ArgumentError("option '--trace' requires an argument")) { try plain.parse(["--trace"]) }
        let taken = ArgumentParser<Key>([.init(.cache, "T", nil, value: "CACHE", help: "")])
        let parsed = try taken.parse(["-T", "none", "--trace", "e"])
        #expect(parsed.last(.cache) == "none" && parsed.traces == ["e"])
    }
}
