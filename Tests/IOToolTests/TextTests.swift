import Testing

@testable import IOTool

@Suite("How amounts, times and bytes are printed")
struct TextTests {
    @Test("amounts are whole numbers where they can be, and have three decimals where not")
    func amounts() {
        #expect(SizeText.of(0) == "0 bytes")
        #expect(SizeText.of(1000) == "1000 bytes")
        #expect(SizeText.of(1024) == "1 KiB")
        #expect(SizeText.of(1536) == "1.500 KiB")
        #expect(SizeText.of(100_001) == "97.657 KiB")
        #expect(SizeText.of(64 << 20) == "64 MiB")
        #expect(SizeText.of(0.183065) == "0.183065 bytes")
        #expect(SizeText.of((3 << 20) + 400) == "3 MiB")
        #expect(SizeText.of(Int.max) == "8 EiB")
    }

    @Test("a report has the words that scripts look for")
    func report() {
        var report = TransferReport(verb: "wrote", offset: 512, byteCount: 65536, style: .forPeople)
        #expect(report.text(nanoseconds: 13_115_428) == "wrote 65536/65536 bytes at offset 512\n64 KiB, 1 ops; 00.01 sec (4.765 MiB/sec and 76.2461 ops/sec)\n")
        #expect(report.text(nanoseconds: 61_500_000_000).contains("; 0:01:01.50 ("))
        report.style = .forMachines
        #expect(report.text(nanoseconds: 1_000_000_000) == "65536,1,0:00:01.00,65536.000,1.000\n")
        report.style = .silent
        #expect(report.text(nanoseconds: 1) == "")
    }

    @Test("bytes are shown sixteen on a line, with letters and digits at the end")
    func dump() {
        let bytes = Array("a!~ z{AZ09_-.0123 xy".utf8)
        #expect(
            HexDump.text(bytes, startingAt: 4080) == """
                00000ff0:  61 21 7e 20 7a 7b 41 5a 30 39 5f 2d 2e 30 31 32  a...z.AZ09...012
                00001000:  33 20 78 79  3.xy

                """)
    }
}

@Suite("What commands take")
struct ArgumentTests {
    @Test("letters are read as getopt reads them")
    func letters() throws {
        let options = try LetterOptions(["-qP", "7", "0", "-s5", "4k", "--", "-x"], letters: "P:qs:", command: "read")
        #expect(options.contains("q") && options.last("P") == "7" && options.last("s") == "5")
        #expect(options.operands == ["0", "4k", "-x"])
        #expect(throws: CommandFailure.self) { try LetterOptions(["-z"], letters: "q", command: "read") }
        #expect(throws: CommandFailure.self) { try LetterOptions(["-P"], letters: "P:", command: "read") }
        #expect(throws: CommandFailure.self) { try LetterOptions(["-:"], letters: "P:", command: "read") }
    }

    @Test("sizes have suffixes and fractions", arguments: [("1.5k", 1536), (".5k", 512), ("1.k", 1024), ("0x200", 512), ("+5", 5), ("1b", 1), (".001G", 1_073_742)])
    func sizes(_ text: String, _ bytes: Int) throws {
        #expect(try ArgumentValues.bytes(text) == bytes)
    }

    @Test("what is no size is refused", arguments: ["", "x", "1.5", "1e3", "8E", "-1", "--", "1 ", ".", "+-5", "1.5.k"])
    func noSizes(_ text: String) {
        #expect(throws: CommandFailure.self) { try ArgumentValues.bytes(text) }
    }

    @Test("patterns are bytes in C's notations")
    func patterns() throws {
        #expect(try ArgumentValues.pattern("0xab") == 0xab)
        #expect(try ArgumentValues.pattern("010") == 8)
        #expect(try ArgumentValues.pattern("0") == 0)
        #expect(try ArgumentValues.pattern("+7") == 7)
        for text in ["300", "-1", "1k", "", "0x", "a", "08"] { #expect(throws: CommandFailure.self) { try ArgumentValues.pattern(text) } }
    }
}
