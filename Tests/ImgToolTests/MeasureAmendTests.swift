import Foundation
import Testing

@Suite("measure and amend do what qemu-img does", .serialized)
struct MeasureAmendTests {
    @Test("measure counts what an image would take")
    func measure() throws {
        try CommandScript().expectSame([
            "measure a.raw", "measure -O qcow2 a.raw", "measure b.qcow2", "measure -O qcow2 b.qcow2", "measure -O qcow2 c.qcow2", "measure -O qcow2 d.qcow2",
            "measure -O qcow2 long.qcow2", "measure --size 1G", "measure --size 1G -O qcow2", "measure --output json --size 1G -O qcow2", "measure --output json b.qcow2",
            "measure --size 1G -O qcow2 -o cluster_size=4k", "measure -O qcow2 -o preallocation=full --size 1G", "measure -O qcow2 -o backing_file=x,backing_fmt=raw --size 1G",
            "measure -O qcow2 --size 0", "measure -O raw --size 1000", "measure --size 7E", "measure --size 7E -O qcow2", "measure -O qcow2 -o size=3M --size 3M",
            "measure -O qcow2 -o extended_l2=on --size 1G", "measure -O qcow2 -o backing_file=b.qcow2,backing_fmt=qcow2 b.qcow2",
            "measure -O qcow2 -o cluster_size=4k,refcount_bits=1 b.qcow2", "measure -U a.raw", "measure -f raw a.raw", "measure -O qcow2 -o size=2G b.qcow2",
        ])
    }

    @Test("measure refuses in the same words")
    func measureRefusals() throws {
        try CommandScript().expectSame([
            "measure", "measure --size 1G b.qcow2", "measure a b", "measure --size x", "measure --size 8E", "measure --size -1", "measure -O foo --size 1", "measure -O null-co --size 1",
            "measure -O qcow2 --size 1G -o foo=1", "measure -O qcow2 -o help --size 1", "measure -O file --size 1M", "measure -O raw -o foo=1 --size 1",
            "measure -O qcow2 -o cluster_size=3 --size 1", "measure -l s b.qcow2", "measure -l s --size 1", "measure -f foo a.raw", "measure --image-opts -f raw a",
            "measure --output foo a.raw", "measure nosuch", "measure -O qcow2 -o , --size 1", "measure -f qcow2 --size 1M", "measure --image-opts --size 1M",
            "measure -O qcow2 -o encrypt.format=luks,encrypt.key-secret=s --size 1M", "measure -O luks -o key-secret=s --size 1M", "measure -O qcow2 -o encrypt.format=luks --size 1M", "measure -O qcow2 -o compat=9 --size 1M",
            "measure -O qcow2 -o compat= --size 1M", "measure -O qcow2 -o encrypt.format=aes,encrypt.key-secret=s --size 1M",
        ])
    }

    @Test("amend changes what can be changed")
    func amend() throws {
        try CommandScript().expectSame([
            "amend -o compat=0.10 e.qcow2", "amend -o compat=1.1 e.qcow2", "amend -o size=20M e.qcow2", "amend -o size=5M e.qcow2", "amend -o lazy_refcounts=on e.qcow2",
            "amend -o refcount_bits=8 b.qcow2", "amend -o lazy_refcounts=off -o refcount_bits=16 b.qcow2", "amend -q -o compat=v3 b.qcow2", "amend --force -o compat=1.1 b.qcow2",
            "amend --image-opts -o compat=1.1 driver=qcow2,file.filename=b.qcow2", "amend -o nolazy_refcounts b.qcow2", "info b.qcow2",
        ], comparing: ["b.qcow2": "qcow2", "c.qcow2": "qcow2", "e.qcow2": "qcow2"])
    }

    @Test("amend refuses in the same words")
    func amendRefusals() throws {
        try CommandScript().expectSame([
            "amend", "amend b.qcow2", "amend -o help", "amend -o refcount_bits=3 b.qcow2", "amend -o cluster_size=4k b.qcow2", "amend -o preallocation=full b.qcow2",
            "amend -o extended_l2=on b.qcow2", "amend -o backing_file=x,backing_fmt=raw b.qcow2", "amend -o backing_file=x c.qcow2", "amend -o foo=1 b.qcow2", "amend -f raw -o size=1M a.raw",
            "amend -f raw -o help", "amend -t foo -o compat=1.1 b.qcow2", "amend -o compat=1.2 b.qcow2", "amend -o data_file=x b.qcow2", "amend -o data_file_raw=on b.qcow2",
            "amend -o compat=1.1 nosuch", "amend -o compat=1.1 a b", "amend -o , b.qcow2", "amend -o lazy_refcounts=maybe b.qcow2", "amend -f foo -o x b.qcow2",
        ], comparing: ["a.raw": "raw", "b.qcow2": "qcow2"])
    }
}
