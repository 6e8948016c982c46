import StrataTesting
import Testing

@Suite("--image-opts in the forms that only command lines have")
struct ImageOptionTests {
    @Test("sizes have suffixes and NBD servers short addresses, as with QEMU's tools", arguments: [
        "driver=qcow2,l2-cache-size=1M,file.filename=x", "driver=qcow2,cache-size=2M,l2-cache-entry-size=4k,file.filename=x",
        "driver=qcow2,refcount-cache-size=1M,file.filename=x", "driver=blkdebug,image.driver=null-co,align=4k,max-transfer=64k",
        "driver=preallocate,prealloc-size=1M,prealloc-align=1M,file.filename=x", "driver=raw,offset=64k,size=64k,file.filename=x",
        "driver=quorum,children.0.driver=null-co,children.0.size=1M,vote-threshold=1", "driver=nbd", "driver=nbd,port=3", "driver=nbd,path=/x,port=3",
        "driver=nbd,path=/x,host=y", "driver=nbd,path=/x,server.type=unix,server.path=/x", "driver=nbd,path=/nowhere/nbd.sock",
        "driver=nbd,host=localhost,port=1,export=z", "file.driver=nbd,file.host=localhost,file.port=1",
    ])
    func legacyForms(options: String) throws {
        let folder = try TemporaryFolder()
        try QEMU.img("create", "-f", "qcow2", "x", "1M", in: folder)
        let ours = try run(Strata.binary, ["img", "info", "--image-opts", options], in: folder.url)
        let theirs = try run("qemu-img", ["info", "--image-opts", options], in: folder.url)
        #expect(ours.ending == theirs.ending, "\(ours)")
        #expect(ours.errorText.replacing("strata img:", with: "qemu-img:") == theirs.errorText)
        // Names of images that have none but their options come in another order.
        let lines = { (finished: Finished) in finished.text.split(separator: "\n").filter { !$0.contains("json:") } }
        #expect(lines(ours) == lines(theirs))
    }
}
