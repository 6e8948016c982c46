import StrataBase
import Testing

@Suite("sizes as people write them")
struct ByteSizeTests {
    @Test("sizes parse as QEMU's tools parse them", arguments: [
        ("0", 0), ("512", 512), ("64k", 65536), ("64K", 65536), ("1.5G", 1_610_612_736), ("1T", 1 << 40), ("2E", 2 << 60), ("0x1000", 4096),
        ("10b", 10), ("0.5k", 512), ("+1", 1), (" 1", 1), (" \t\n+1k", 1024), (".5k", 512), ("1.", 1), ("1.k", 1024), ("0.0", 0), ("1.0b", 1), ("0x1e", 30), ("+0X10", 16), ("0.7k", 717), ("1.00048828125k", 1025),
        ("1.00146485k", 1026), (".3G", 322_122_547), (".7T", 769_658_139_443), ("1.9999999999999999999", 2),
        ("0.001G", 1_073_742), ("0.0004k", 0), ("0.00048828125k", 1), ("1.9999k", 2048), ("7.99999E", 9_223_360_507_639_729_792),
    ])
    func parses(text: String, bytes: Int) {
        #expect(ByteSize.parse(text) == bytes)
    }

    @Test("what is not a size is refused", arguments: [
        "", "k", "-1", "1.5", ".5", ".", ".k", "1kk", "8E", "7.99999999999999999999E", "1x", "9999999999999999999", "0x", "0x-1", "0x+1", "0x8000000000000000", " ", "1 ", "++1", "+-1", "+ 1", "1e3", "0x1k", "1.5b", "1GiB",
    ])
    func refuses(text: String) {
        #expect(ByteSize.parse(text) == nil)
    }

    @Test("a plain number, or one with a suffix, can be out of range", arguments: ["-1", " -0", "16E", "16.0E", "15.99999999999999999999E", "18446744073709551616", "0x99999999999999999999", "-99999999999999999999"])
    func outOfRange(text: String) {
        #expect(ByteSize.read(text) == .outOfRange)
    }

    @Test("a negative number with more than its digits is none", arguments: ["-1k", "-1.", "-0x10", "99999999999999999999k", "99999999999999999999."])
    func noNumber(text: String) {
        #expect(ByteSize.read(text) == .noNumber)
    }

    @Test("sizes print with three significant digits", arguments: [
        (0, "0 B"), (512, "512 B"), (1000, "0.977 KiB"), (1024, "1 KiB"), (196_608, "192 KiB"), (200_704, "196 KiB"), (1 << 30, "1 GiB"),
        (1_610_612_736, "1.5 GiB"), (1_048_575, "1 MiB"),
    ])
    func prints(bytes: Int, text: String) {
        #expect(ByteSize.humanReadable(bytes) == text)
    }
}
