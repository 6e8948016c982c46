import Foundation
import Testing

@Suite("daemon's command line")
struct CommandLineTests {
    @Test(
        "a mistake is named together with its option, and the exit status is 1",
        arguments: [
            (["--blockdev", "driver=nosuch,node-name=a"], "--blockdev driver=nosuch,node-name=a: Parameter 'driver' does not accept value 'nosuch'"),
            (["--blockdev", "null-co"], "--blockdev null-co: 'node-name' must be specified for the root node"),
            (["--blockdev", "null-co,node-name=a,size=x"], "Parameter 'size'"),
            (["--blockdev", "{\"driver\": \"null-co\""], "JSON parse error"),
            (["--blockdev", "file,node-name=a,filename=/nonexistent/a"], "Could not open '/nonexistent/a': No such file or directory"),
            (["--export", "nbd,id=e,node-name=a"], "--export nbd,id=e,node-name=a: Cannot find device='' nor node-name='a'"),
            (["--blockdev", "null-co,node-name=a", "--export", "nbd,id=e,node-name=a"], "NBD server not running"),
            (["--export", "vhost-user-blk,id=e,node-name=a"], "Parameter 'type' does not accept value 'vhost-user-blk'"),
            (["--nbd-server", "addr.type=unix"], "Parameter 'addr.path' is missing"),
            (["--nbd-server", "addr.type=unix,addr.path=s,tls-creds=t"], "TLS"),
            (["--nbd-server", "addr.type=inet,addr.host=localhost,addr.port=0,addr.ipv4=off,addr.ipv6=off"], "Cannot disable IPv4 and IPv6 at same time"),
            (["--nbd-server", "addr.type=inet,addr.host=localhost,addr.port=10,addr.to=9"], "Parameter 'to' expects the last of the ports from '10' on"),
            (["--nbd-server", "addr.type=inet,addr.host=localhost,addr.port=0,addr.numeric=on"], "address resolution failed for localhost:0: Name or service not known"),
            (["--chardev", "socket,path=s"], "chardev: no id specified"),
            (["--chardev", "vc,id=c"], "'vc' is not a valid char driver name"),
            (["--chardev", "socket,id=c,path=s,server=on,tn3270=on"], "Parameter 'tn3270' is not supported"),
            (["--chardev", "socket,id=c,path=s,server=maybe"], "Parameter 'server' expects 'on' or 'off'"),
            (["--chardev", "socket,id=c,path=s,wait=off"], "'wait' option is incompatible with socket in client connect mode"),
            (["--chardev", "socket,id=c,host=localhost,server=on,wait=off"], "no port given"),
            (["--chardev", "socket,id=c,path=/nonexistent/s,server=on,wait=off"], "No such file or directory"),
            (["--chardev", "socket,id=c,path=s,server=on,wait=off", "--monitor", "c", "--monitor", "c"], "--monitor c: chardev 'c' is already in use"),
            (["--monitor", "c"], "--monitor c: chardev \"c\" not found"),
            (["--chardev", "socket,id=c,path=s,server=on,wait=off", "--monitor", "c,mode=readline"], "Only QMP is supported"),
            (["--object", "secret,id=s"], "Either 'file' or 'data' must be provided"),
            (["--object", "iothread,id=t", "--object", "iothread,id=t"], "--object iothread,id=t: attempt to add duplicate property 't'"),
            (["--compat", "deprecated-input=maybe"], "--compat deprecated-input=maybe: Parameter 'deprecated-input' does not accept value 'maybe'"),
            (["--compat", "input=reject"], "Parameter 'input' is unexpected"),
            (["--pidfile", "/nonexistent/pid"], "cannot create PID file"),
            (["stray"], "stray: Unexpected argument"),
            (["--nosuch"], "unrecognized option '--nosuch'"),
        ] as [([String], String)])
    func mistakes(arguments: [String], message: String) throws {
        let scratch = try Scratch()
        let outcome = try run(strata, ["daemon"] + arguments, in: scratch.path)
        #expect(outcome.status == 1)
        #expect(outcome.complaint.contains(message), "\(outcome.complaint)")
        #expect(outcome.output.isEmpty)
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path).isEmpty, "a failed start leaves nothing behind")
    }

    @Test("help and version are answered before anything is done")
    func questions() throws {
        let help = try run(strata, ["daemon", "--blockdev", "nonsense", "--help"])
        #expect(help.status == 0 && help.output.contains("--nbd-server"))
        let version = try run(strata, ["daemon", "--version"])
        #expect(version.status == 0 && version.output.hasPrefix("strata daemon version 10.0.2"))
        let objects = try run(strata, ["daemon", "--object", "help"])
        #expect(objects.status == 0 && objects.output.contains("  iothread\n"))
    }

    @Test("through a link named qemu-storage-daemon it answers to that name")
    func link() throws {
        let scratch = try Scratch()
        try FileManager.default.createSymbolicLink(atPath: scratch.file("qemu-storage-daemon"), withDestinationPath: strata)
        let outcome = try run(scratch.file("qemu-storage-daemon"), ["--monitor", "c"])
        #expect(outcome.complaint == "qemu-storage-daemon: --monitor c: chardev \"c\" not found\n")
        #expect(outcome.status == 1)
    }
}
