import Testing
@testable import TraceCompiler

@Suite("trace-events files")
struct TraceParserTests {
    private func parse(_ text: String) throws(TraceSyntaxError) -> [TraceDeclaration] { try TraceParser.parse(text, file: "trace-events") }

    @Test("a declaration has a name, typed arguments and a format")
    func plain() throws {
        let event = try #require(
            try parse(#"nbd_request_begin(uint64_t cookie, const char *client, size_t bytes) "cookie 0x%016" PRIx64 " client '%s' bytes %-8zu%%""#).first)
        #expect(event.name == "nbd_request_begin")
        #expect(!event.isDisabled)
        #expect(event.arguments == [.init(type: .uint64, name: "cookie"), .init(type: .string, name: "client"), .init(type: .size, name: "bytes")])
        var hex = TraceConversion("x")
        hex.width = 16
        hex.isZeroPadded = true
        var left = TraceConversion("u")
        left.width = 8
        left.isLeftAligned = true
        #expect(
            event.format == [
                .text("cookie 0x"), .conversion(hex), .text(" client '"), .conversion(TraceConversion("s")), .text("' bytes "), .conversion(left),
                .text("%"),
            ])
    }

    @Test("comments, blank lines, carriage returns and blanks anywhere do not matter")
    func layout() throws {
        let events = try parse("# first\n\n  \t\n a ( )  \"none\" # behind\r\nb( void ) \"x\"\n  # last\ndisable  c (int  n ) \"%d\"")
        #expect(events.map(\.name) == ["a", "b", "c"])
        #expect(events.map(\.line) == [4, 5, 7])
        #expect(events.map(\.isDisabled) == [false, false, true])
    }

    @Test("every documented type is taken, with the conversions that fit it", arguments: [
        ("int", "%d"), ("int64_t", "%lld"), ("size_t", "%zu"), ("ssize_t", "%zd"), ("off_t", "%08x"), ("int32_t", "%i"), ("unsigned", "%u"),
        ("unsigned int", "%X"), ("uint8_t", "%d"), ("uint16_t", "%hx"), ("uint32_t", "%u"), ("uint64_t", "%#lx"), ("bool", "%d"),
        ("const char *", "%s"), ("void *", "%p"), ("const void *", "%20p"),
    ])
    func types(type: String, conversion: String) throws {
        #expect(try parse("e(\(type) value) \"v \(conversion)\"").count == 1)
    }

    @Test("what breaks a rule is refused with the file, the line and the rule", arguments: [
        (#"a(float x) "%f""#, "argument 'x' of event 'a' has type 'float'; the types are: "),
        (#"a(int) "%d""#, "argument 'int' of event 'a' must be a type and a name"),
        (#"a(int x, ) "%d""#, "argument 2 of event 'a' is empty"),
        (#"a(int x, int x) "%d%d""#, "event 'a' has two arguments 'x'"),
        (#"a(int 1x) "%d""#, "argument 'int 1x' of event 'a' must be a type and a name"),
        (#"a(int x "%d""#, "the arguments of event 'a' lack their ')'"),
        (#"a "%d""#, "event 'a' lacks its arguments in parentheses"),
        (#"a"#, "event 'a' lacks its arguments in parentheses"),
        (#"1a() "x""#, "expected the name of an event, found '1a'"),
        (#"disable () "x""#, "expected the name of an event, found '('"),
        (#"disable disable a() "x""#, "property 'disable' is repeated"),
        (#"vcpu a() "x""#, "unknown property 'vcpu'"),
        (#"a()"#, "event 'a' lacks its format string"),
        (#"a(int x) "%d"#, "the format of event 'a' lacks its closing quote"),
        (#"a() "x" y"#, "'y' in the format of event 'a' is no length macro behind a '%'"),
        (#"a(int x) "%" PRIq64"#, "'PRIq64' in the format of event 'a' is no length macro behind a '%'"),
        (#"a() "x" ;"#, "unexpected ';' after the format of event 'a'"),
        (#"a() "x\n""#, "the format of event 'a' ends with a newline, which the output adds itself"),
        (#"a() "x\ny""#, "the format of event 'a' contains a newline"),
        (#"a() "\q""#, #"unknown escape '\q' in the format of event 'a'"#),
        (#"a(int x) "%f""#, "'%f' in the format of event 'a' is none of the conversions %d %i %u %x %X %s %p %%"),
        (#"a(int x) "%999d""#, "'%999d' in the format of event 'a' is none of the conversions %d %i %u %x %X %s %p %%"),
        (#"a(int x) "%""#, "'%' in the format of event 'a' is none of the conversions %d %i %u %x %X %s %p %%"),
        (#"a(int x) "none""#, "event 'a' has 1 arguments, and its format names 0"),
        (#"a() "%d""#, "event 'a' has 0 arguments, and its format names 1"),
        (#"a(int x) "%s""#, "'%s' in the format of event 'a' does not fit the type of argument 'x'"),
        (#"a(const char *x) "%d""#, "'%d' in the format of event 'a' does not fit the type of argument 'x'"),
        (#"a(void *x) "%x""#, "'%x' in the format of event 'a' does not fit the type of argument 'x'"),
        (#"a(uint64_t x) "%d""#, "'%d' in the format of event 'a' does not fit the type of argument 'x'"),
        (#"a(int a, int b, int c, int d, int e, int f, int g, int h, int i, int j, int k) "x""#, "event 'a' has 11 arguments; there may be 10"),
    ])
    func refusals(text: String, message: String) {
        let error = #expect(throws: TraceSyntaxError.self) { try parse("# one\n\n" + text) }
        #expect(error.map { $0.description.hasPrefix("trace-events:3: \(message)") } == true, "\(String(describing: error))")
    }

    @Test("a name is declared once")
    func duplicates() {
        let error = #expect(throws: TraceSyntaxError.self) { try parse("a() \"x\"\nb() \"x\"\na() \"y\"") }
        #expect(error?.description == "trace-events:3: event 'a' is declared already, on line 1")
    }

    @Test("any bytes are an answer or an error, never a trap")
    func noise() {
        var random = SystemRandomNumberGenerator()
        let alphabet = Array("ab(),*%\"\\ \tdsx#\nint const char PRId64".unicodeScalars)
        for _ in 0..<20_000 {
            var text = ""
            for _ in 0..<Int.random(in: 0..<40, using: &random) { text.unicodeScalars.append(alphabet.randomElement(using: &random) ?? "a") }
            _ = try? parse(text)
        }
    }
}

@Suite("generated trace points")
struct TraceEmitterTests {
    @Test("a trace point looks at its slot and its event before it computes anything; a disabled one does nothing and is listed")
    func swift() throws {
        let text = try TraceEmitter.swift(
            TraceParser.parse("a_b(int in, const char *the_name) \"%d \\\"%s\\\"\"\ndisable c(int x) \"%d\"", file: "f"), module: "M")
        #expect(text.contains("static let module = TraceModule(\"M\", [\n        aB,\n        c,\n    ])"))
        #expect(text.contains("static func aB(`in`: @autoclosure () -> Int, theName: @autoclosure () -> String) {\n        if TraceSlots.isOn(\(TraceEmitter.slot(of: "a_b"))) && MTraceEvents.aB.isOn { TraceRecording.aB(`in`(), theName()) }\n    }"))
        #expect(text.contains("static func c(x: @autoclosure () -> Int) {\n    }"))
        #expect(text.contains(#"pieces: [.value(.init(.decimal)), .text(" \""), .value(.init(.string)), .text("\"")]"#))
        #expect(!text.contains("static func c(_ x"))
    }

    @Test("slots lie in the table")
    func slots() {
        for index in 0..<1000 { #expect(TraceEmitter.slot(of: "event_\(index)") < 4096) }
    }
}
