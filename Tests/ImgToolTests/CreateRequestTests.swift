@testable import ImgTool
import Testing
import ToolSupport

@Suite("what create is asked for")
struct CreateRequestTests {
    /// Each line was printed by qemu-img 10.0.2 for the same options.
    @Test("the announcement is qemu-img's, option for option", arguments: [
        ("raw", "size=10M", "Formatting 'x', fmt=raw size=10485760\n"),
        ("raw", "size=10M,preallocation=full", "Formatting 'x', fmt=raw size=10485760 preallocation=full\n"),
        (
            "raw", "preallocation=off,nocow=off,extent_size_hint=1M,size=1M",
            "Formatting 'x', fmt=raw size=1048576 nocow=off preallocation=off extent_size_hint=1048576\n"
        ),
        (
            "qcow2", "size=10M",
            "Formatting 'x', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=10485760 lazy_refcounts=off refcount_bits=16\n"
        ),
        (
            "qcow2", "size=1G,cluster_size=4k,compat=0.10,refcount_bits=16,lazy_refcounts=off",
            "Formatting 'x', fmt=qcow2 cluster_size=4096 extended_l2=off compression_type=zlib size=1073741824 compat=0.10 lazy_refcounts=off refcount_bits=16\n"
        ),
        (
            "qcow2", "preallocation=off,nocow=off,extent_size_hint=1M,data_file=zz,backing_file=a.raw,backing_fmt=raw,compat=1.1,size=1M",
            "Formatting 'x', fmt=qcow2 cluster_size=65536 extended_l2=off preallocation=off compression_type=zlib size=1048576 compat=1.1 backing_file=a.raw backing_fmt=raw data_file=zz lazy_refcounts=off refcount_bits=16 nocow=off extent_size_hint=1048576\n"
        ),
        (
            "qcow2", "lazy_refcounts,extended_l2=on,cluster_size=128k,compression_type=zstd,preallocation=metadata,data_file=d,data_file_raw=on,size=4M",
            "Formatting 'x', fmt=qcow2 cluster_size=131072 extended_l2=on preallocation=metadata compression_type=zstd size=4194304 data_file=d data_file_raw=on lazy_refcounts=on refcount_bits=16\n"
        ),
        (
            "qcow2", "backing_file=x,,y,backing_fmt=raw,size=1M",
            "Formatting 'x', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=1048576 backing_file=x,,y backing_fmt=raw lazy_refcounts=off refcount_bits=16\n"
        ),
        (
            "qcow2", "size=1M,encryption=no,extended_l2=n,lazy_refcounts=true,lazy_refcounts=yes,nocow=false",
            "Formatting 'x', fmt=qcow2 encryption=no cluster_size=65536 extended_l2=n compression_type=zlib size=1048576 lazy_refcounts=yes refcount_bits=16 nocow=false\n"
        ),
        (
            "qcow2", "size=1.5k,nolazy_refcounts,cluster_size=4k,cluster_size=8k",
            "Formatting 'x', fmt=qcow2 cluster_size=8192 extended_l2=off compression_type=zlib size=1536 lazy_refcounts=off refcount_bits=16\n"
        ),
    ])
    func announces(format: String, options: String, line: String) throws {
        let format = try #require(CreateFormat.named(format))
        #expect(try CreateRequest(filename: "x", format: format, options: OptionList(parsing: options)).announcement == line)
    }

    @Test("bad options are named", arguments: [
        ("foo=1", "Invalid parameter 'foo'"), ("help=1", "Invalid parameter 'help'"), ("=1", "Invalid parameter ''"),
        ("compat", "Invalid parameter 'compat'"), ("nosize", "Invalid parameter 'nosize'"),
        ("lazy_refcounts=maybe", "Parameter 'lazy_refcounts' expects 'on' or 'off'"),
        ("size=-1", "Value '-1' is out of range for parameter 'size'"),
        ("refcount_bits=x", "Parameter 'refcount_bits' expects a number"),
        ("cluster_size=1x", "Parameter 'cluster_size' expects a non-negative number below 2^64"),
        ("cluster_size", "Parameter 'cluster_size' expects a non-negative number below 2^64"),
    ])
    func refuses(options: String, message: String) {
        let failure = #expect(throws: ToolFailure.self) {
            try CreateRequest(filename: "x", format: .qcow2, options: OptionList(parsing: options))
        }
        #expect(failure?.message == message)
    }

    @Test("help lists the options in order, with the types spelled out")
    func help() {
        #expect(
            CreateFormat.raw.helpText(knowsFile: true) == """
                Supported options:
                  extent_size_hint=<size> - Extent size hint for the image file, 0 to disable
                  nocow=<bool (on/off)>  - Turn off copy-on-write (valid only on btrfs)
                  preallocation=<str>    - Preallocation mode (allowed values: off, falloc, full)
                  size=<size>            - Virtual disk size

                """)
        #expect(
            CreateFormat.raw.helpText(knowsFile: false) == """
                Supported raw options:
                  size=<size>            - Virtual disk size

                The protocol level may support further options.
                Specify the target filename to include those options.

                """)
    }
}
