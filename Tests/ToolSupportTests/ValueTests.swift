import Testing
import ToolSupport

@Suite("values on command lines")
struct ValueTests {
    @Test("a number outside its range is told from a text that is no number", arguments: [
        ("x", "Invalid request count specified: 'x'."),
        ("", "Invalid request count specified: ''."),
        ("1.5", "Invalid request count specified: '1.5'."),
        ("0", "Invalid request count specified. Must be between 1 and 2147483647."),
        ("-1", "Invalid request count specified. Must be between 1 and 2147483647."),
        ("99999999999", "Invalid request count specified. Must be between 1 and 2147483647."),
        ("99999999999999999999999", "Invalid request count specified. Must be between 1 and 2147483647."),
        ("8E", "Invalid request count specified. Must be between 1 and 2147483647."), ("20E", "Invalid request count specified. Must be between 1 and 2147483647."),
        ("-1k", "Invalid request count specified: '-1k'."),
    ])
    func refusedNumbers(text: String, message: String) {
        #expect(throws: ToolFailure(message)) { try NumberArgument.parse(text, "request count", in: 1...Int(Int32.max)) }
    }

    @Test("numbers take a suffix")
    func numbers() throws {
        #expect(try NumberArgument.parse("64k", "buffer size", in: 1...Int(Int32.max)) == 65536)
    }

    @Test("cache modes are three switches under one word")
    func cacheModes() {
        #expect(CacheMode("none").map { [$0.direct, $0.noFlush, $0.writeback] } == [true, false, true])
        #expect(CacheMode("off") == CacheMode("none"))
        #expect(CacheMode("directsync").map { [$0.direct, $0.noFlush, $0.writeback] } == [true, false, false])
        #expect(CacheMode("writethrough").map { [$0.direct, $0.noFlush, $0.writeback] } == [false, false, false])
        #expect(CacheMode("unsafe") == .unsafe)
        #expect(CacheMode("writeback") == .writeback)
        #expect(CacheMode("foo") == nil)
    }

    @Test("progress stays between nothing and all, whatever a file takes")
    func progress() {
        #expect([0, 1, 50, 100, 250, -3].map { ProgressReporter.hundredths($0, of: 100) } == [0, 100, 5000, 10000, 10000, 0])
        #expect(ProgressReporter.hundredths(0, of: 0) == 10000 && ProgressReporter.hundredths(.max, of: 1) == 10000)
    }
}
