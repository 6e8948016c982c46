import Foundation
import Testing

/// Scripts written for qemu-img must not notice the difference: output, messages and exit status, to the letter.
@Suite("commands answer as qemu-img 10.0 does", .serialized)
struct SameAsQEMUTests {
    private static let images: [[String]] = [
        ["create", "-q", "-f", "raw", "a.raw", "10M"], ["io", "-f", "raw", "-c", "write -P 3 1M 300k", "a.raw"],
        ["create", "-q", "-f", "raw", "odd.raw", "4608"], ["create", "-q", "-f", "raw", "empty.raw", "0"],
        ["create", "-q", "-f", "qcow2", "b.qcow2", "10M"], ["io", "-c", "write -P 1 0 1M", "b.qcow2"],
        ["create", "-q", "-f", "qcow2", "-b", "b.qcow2", "-F", "qcow2", "c.qcow2"],
        ["create", "-q", "-f", "qcow2", "-o", "compat=0.10,cluster_size=4k", "v2.qcow2", "64M"],
        ["create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on,refcount_bits=8", "lazy.qcow2", "3G"],
        ["create", "-q", "-f", "qcow2", "-u", "-b", "gone", "-F", "raw", "gone.qcow2", "1M"],
    ]

    private static func check(_ commands: [String], prefix: [[String]] = images) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare(prefix)
        for command in commands {
            let arguments = command.split(separator: " ").map { $0 == "''" ? "" : String($0) }
            let theirs = try pair.runTheirs(arguments)
            let ours = try pair.runOurs(arguments)
            #expect(ours == theirs, "qemu-img \(command)")
        }
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: pair.ours.path).sorted()
                == FileManager.default.contentsOfDirectory(atPath: pair.theirs.path).sorted())
    }

    @Test("wrong command lines")
    func commandLines() throws {
        try Self.check(
            [
                "", "-x", "--foo", "--version=3", "create", "create -z", "create -f", "create --bac", "create --ob", "create --foo", "create --quiet=1 x",
                "create -f foo x 1M", "create x 1Q", "create x -- -1", "create x 1M 2M", "create x 8E", "create x ''", "create -o , x 1M",
                "create -o '' x 1M", "create --object foo,id=a x 1M", "create --object foo x 1M",
                "info", "info x y", "info --output", "info --output=foo x", "info --o json x", "info --image-opts -f raw x", "info nosuch", "info ''",
                "check", "check a b", "check -r foo x", "check -T foo x", "check -r", "check --output=xml x", "check nosuch",
                "bench", "bench a b", "bench -c 0 a", "bench -c x a", "bench -d 0 a", "bench -d -1 a", "bench -s 0 a", "bench -s 3G a", "bench -o -1 a",
                "bench -c 99999999999 a", "bench --pattern 256 a", "bench -i foo a", "bench -t foo a", "bench -c 10 nosuch",
                "bench --flush-interval 100 a", "bench -w --flush-interval 10 a",
                "convert", "convert a", "convert -m 17 a b", "convert -m 0 a b", "convert -m x a b", "convert -r x a b", "convert -S 1 a b",
                "convert -S foo a b", "convert -S 17M a b", "convert -C -S 4k a b", "convert -C -c -O qcow2 a b", "convert --salvage -C a b",
                "convert --target-is-zero a b", "convert -T foo a b", "convert --target-image-opts a b", "convert -f raw --image-opts a b",
                "convert -n -o size=1 a b", "convert -u", "convert --skip-broken-bitmaps a b", "convert -o , a b", "convert nosuch b",
            ], prefix: [])
    }

    @Test("making raw images")
    func createRaw() throws {
        try Self.check([
            "create n.raw 10M", "create n.raw 4097", "create -f raw -o preallocation=full n1.raw 1M", "create -f raw -o preallocation=falloc n2.raw 1M",
            "create -o size=3M n3.raw 4M", "create -o size=3M -q n3.raw", "create -o foo=1 n.raw 1M", "create /nosuch/d 1M", "create /proc/d 1M",
            "create -b b.qcow2 -F raw e.raw", "create -F raw e.raw 1M", "create -f null-co e 1M", "create . 1M", "create foo:b 1M", "create json:{} 1M",
            "create file:n4.raw 1M", "create -f file n5.raw 1M", "create ./foo:b 1M", "create -o help", "create -o help x", "create -o ? x", "create -f file -o help", "create -f file -o help x", "convert -o help", "convert -o help a.raw", "convert -O file -o help a.raw", "convert -o help a.raw b.raw", "convert -O luks -o ? a.raw", "convert -n -o help a.raw b.raw",
            "create --object secret,id=a,data=b n6.raw 1M", "create n7.raw -q 1M", "create n8.raw",
            "create s1.raw \t1M", "create s2.raw +1M", "create s3.raw .5M", "create s4.raw 1.", "create s5.raw 0.0", "create s6.raw 0.7k", "create s7.raw -- -1M", "create s7.raw -- -1", "create s7.raw 1M\t",
            "create s7.raw 20E", "create -o size=\t1M s8.raw", "create -o size=-1k s9.raw", "create -o size=16E s9.raw", "convert -r +1G a.raw s10.raw", "convert -r -1 a.raw s10.raw", "convert -r 8E a.raw s10.raw",
            "create -f qcow2 -o cluster_size=\t4k,refcount_bits=0x8 s11 1M", "create -f qcow2 -o cluster_size=+4096.,refcount_bits=\t+010 s12 1M", "create -f qcow2 -o refcount_bits=08 s13 1M",
        ])
    }

    @Test("describing raw images, and names of all kinds")
    func infoRaw() throws {
        try Self.check([
            "info a.raw", "info --output=json a.raw", "info --out json a.raw", "info -f raw b.qcow2", "info -f foo b.qcow2", "info file:a.raw", "info ./a.raw",
            "info foo:c", "info json:{", "info json:[1]", "info json:{}", "info json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"a.raw\"}}",
            "info json:{\"driver\":\"raw\",\"file.filename\":\"a.raw\"}", "info --image-opts driver=null-co,size=1G",
            "info --output=json --image-opts driver=null-co,size=1G", "info --image-opts driver=file,filename=a.raw",
            "info --image-opts driver=raw,file.driver=file,file.filename=a.raw", "info --image-opts driver=raw,file.filename=a.raw",
            "info --image-opts foo=bar", "info --backing-chain a.raw", "info --backing-chain --output=json a.raw", "check a.raw", "check -f raw a.raw",
            "check --output=json a.raw", "info odd.raw", "info empty.raw", "info -U a.raw",
        ])
    }

    @Test("converting raw images")
    func convertRaw() throws {
        try Self.check([
            "convert a.raw o.raw", "convert -q -p a.raw o.raw", "convert -p empty.raw o1.raw", "convert -n a.raw nosuch.raw", "convert a.raw odd.raw o2.raw",
            "convert a.raw /nosuch/x", "convert -n a.raw odd.raw", "convert -O null-co a.raw x", "convert -O foo a.raw x", "convert a.raw foo:x",
            "convert -O raw -B b.qcow2 -F qcow2 a.raw x", "convert -O qcow2 -o foo=1 a.raw x",
            "convert --image-opts driver=raw,file.filename=a.raw o3.raw", "convert -n --target-image-opts a.raw driver=raw,file.filename=o3.raw",
            "convert -m 1 -S 0 a.raw o4.raw", "convert -W -S 64k a.raw o5.raw", "convert -C a.raw o6.raw",
        ])
    }
}
