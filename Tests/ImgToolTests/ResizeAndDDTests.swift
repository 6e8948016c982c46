@testable import ImgTool
import Testing
import ToolSupport

@Suite("resize and dd do what qemu-img does", .serialized)
struct ResizeAndDDTests {
    @Test("resize grows and shrinks, relative and absolute, and refuses what makes no sense")
    func resize() throws {
        try CommandScript().expectSame(
            [
                "resize a.raw 12M", "resize -f raw a.raw 11M", "resize -f raw --shrink a.raw 11M", "resize -f raw a.raw +1M", "resize -f raw a.raw -1M",
                "resize --shrink -f raw a.raw -1M", "resize -q -f raw a.raw +1M", "resize b.qcow2 20M", "resize b.qcow2 20M", "resize b.qcow2 15M",
                "resize --shrink b.qcow2 15M", "resize b.qcow2", "resize", "resize b.qcow2 x", "resize b.qcow2 +x", "resize b.qcow2 +0", "resize --shrink b.qcow2 -1G",
                "resize --shrink b.qcow2 0", "resize b.qcow2 1M", "resize --preallocation foo b.qcow2 2M", "resize --preallocation metadata b.qcow2 2M",
                "resize --preallocation full --shrink b.qcow2 1M", "resize b.qcow2 +1", "resize -f raw a.raw 4097", "resize -f raw s1000 1001", "resize -f raw s1000 1025",
                "resize -f raw --shrink a.raw 4097", "resize -f raw a.raw 4098", "resize -f raw a.raw -- -1", "resize -f raw a.raw -- +1", "resize nosuch 1M",
                "resize a.raw b 1M", "resize -f foo a.raw 1", "resize --image-opts -f raw a.raw 1M", "resize --image-opts driver=qcow2,file.filename=b.qcow2 30M",
                "resize -f raw --preallocation full a.raw 1M", "resize -f raw --preallocation falloc a.raw 2M", "resize b.qcow2 8E", "resize b.qcow2 -- ''", "resize b.qcow2 +",
                "resize b.qcow2 1.5G", "resize b.qcow2 +1.5x", "resize b.qcow2 -1", "resize -f raw a.raw -x", "resize b.qcow2 ++1", "resize b.qcow2 100000000000000000000",
                "resize b.qcow2 2M b.qcow2", "resize --shrink", "resize 1M b.qcow2", "resize -f raw -1M a.raw", "resize a.raw -1M -f raw", "resize a.raw --shrink -f raw -1M",
                "resize a.raw -0x1000", "resize --shrink -f raw a.raw -1Mx", "resize -f raw a.raw -", "resize -f raw a.raw -k", "resize a.raw -q1", "resize a.raw -1q",
                "resize --shrink -1 -f raw a.raw -2", "resize a.raw --", "resize --shrink a.raw -- -1k", "resize -f raw a.raw +1M --preallocation=falloc",
                "resize e.qcow2 7M --shrink", "resize c.qcow2 12M", "info c.qcow2 --output=json", "resize long.qcow2 -5M --shrink", "resize long.qcow2 +5M",
                "resize e.qcow2 \t12M", "resize e.qcow2 +\t1M", "resize --shrink e.qcow2 -\t1k", "resize e.qcow2 \t-1k", "resize e.qcow2 .5G", "resize e.qcow2 +.5M", "resize e.qcow2 +1.", "resize e.qcow2 ++1k", "resize e.qcow2 +++1k",
                "resize e.qcow2 +-1k", "resize e.qcow2 15E", "resize e.qcow2 16E", "resize e.qcow2 1e3", "resize e.qcow2 +\t+1k", "resize e.qcow2 1G\t",
            ], comparing: ["a.raw": "raw", "b.qcow2": "qcow2", "c.qcow2": "qcow2", "e.qcow2": "qcow2", "long.qcow2": "qcow2", "s1000": "raw"])
    }

    @Test("dd copies what bs, count and skip select, into any format")
    func dd() throws {
        try CommandScript().expectSame(
            [
                "dd if=d.qcow2 of=o1.raw", "dd if=d.qcow2 of=o2.qcow2 -O qcow2", "dd bs=1M count=2 skip=1 if=d.qcow2 of=o3.raw", "dd bs=1M skip=20 if=d.qcow2 of=o4.raw",
                "dd bs=1M skip=3 if=d.qcow2 of=o5.raw", "dd bs=1000 count=3 if=d.qcow2 of=o6.raw", "dd bs=1000 skip=1 count=3 if=d.qcow2 of=o7.qcow2 -O qcow2",
                "dd count=0 if=d.qcow2 of=o8.raw", "dd bs=1M count=1 skip=2 if=d.qcow2 of=o9.raw", "dd bs=512 skip=20480 if=a.raw of=o10.raw",
                "dd bs=512 skip=20481 if=a.raw of=o11.raw", "dd if=s1000 of=o12.raw", "dd if=s1000 of=o13.raw bs=300 skip=1", "dd if=d.qcow2 of=o14.raw of=o15.raw",
                "dd bs=1M count=1 if=a.raw of=o16.raw bs=2M", "dd count=9223372036854775807 if=a.raw of=o17.raw", "dd skip=1000000000000 bs=1G if=a.raw of=o18.raw",
                "dd -U if=a.raw of=o19.raw", "dd --image-opts if=driver=qcow2,file.filename=d.qcow2 of=o20.raw", "dd -f raw if=d.qcow2 of=o21.raw bs=1M count=1",
                "dd if=empty.raw of=o22.raw", "dd count=010 if=a.raw of=o23.raw", "dd bs=+1. skip=0x10 count=\t+5 if=s1000 of=o24.raw", "dd bs=.5k skip=-0 count=1 if=s1000 of=o25.raw",
            ], comparing: [
                "o1.raw": "raw", "o2.qcow2": "qcow2", "o3.raw": "raw", "o4.raw": "raw", "o5.raw": "raw", "o6.raw": "raw", "o7.qcow2": "qcow2", "o8.raw": "raw", "o9.raw": "raw",
                "o10.raw": "raw", "o12.raw": "raw", "o13.raw": "raw", "o15.raw": "raw", "o16.raw": "raw", "o17.raw": "raw", "o20.raw": "raw", "o21.raw": "raw", "o22.raw": "raw", "o23.raw": "raw", "o24.raw": "raw", "o25.raw": "raw",
            ])
    }

    @Test("dd refuses wrong words in the same words")
    func ddRefusals() throws {
        try CommandScript().expectSame([
            "dd", "dd if=d.qcow2", "dd of=x", "dd foo=1 if=d.qcow2 of=x", "dd bs=0 if=d.qcow2 of=x", "dd bs=x if=d.qcow2 of=x", "dd count=x if=d.qcow2 of=x",
            "dd skip=x if=d.qcow2 of=x", "dd count=-1 if=d.qcow2 of=x", "dd bs=-1 if=d.qcow2 of=x", "dd skip=-1 if=d.qcow2 of=x", "dd if=nosuch of=x", "dd -f foo if=d.qcow2 of=x",
            "dd -O foo if=d.qcow2 of=x", "dd if of=x", "dd seek=1 if=d.qcow2 of=x", "dd bs=3G if=d.qcow2 of=x", "dd bs=8E if=d.qcow2 of=x", "dd -n if=d.qcow2 of=x",
            "dd --image-opts -f raw if=x of=y", "dd if=a.raw of=/nosuch/x", "dd x", "dd =", "dd bs= if=a.raw of=x", "dd if=a.raw of=foo:x", "dd -O null-co if=a.raw of=x",
            "dd if=a.raw of=x -q", "dd if= of=x", "dd if=nosuch -O foo of=x", "dd foo=1 -O foo if=x", "dd bs=x foo=1", "dd --object foo if=a.raw of=x",
        ] + ["count", "skip"].flatMap { key in
            ["1k", "1.", ".5", "1b", "-1k", "-08", "08", "0x", "+\t1", "++1", "1\t", "", "18446744073709551616", "9223372036854775808", "-0x1"].map { "dd \(key)=\($0) if=a.raw of=x" }
        })
    }

    @Test("a size with a sign is relative", arguments: [("1k", 10, 1024), ("+1k", 10, 1034), ("-4", 10, 6), ("-11", 10, -1), ("0x10", 0, 16)])
    func sizes(text: String, current: Int, result: Int) throws {
        #expect(try SizeChange(text).applied(to: current) == result)
    }

    @Test("a size beyond what a disk can have is none")
    func overflow() throws {
        #expect(try SizeChange("+7E").applied(to: 2 << 60) == nil)
    }
}
