import BlockGraph
import Foundation
import NBDServer
import IOCore
import Synchronization
import Testing

@Suite("NBD server smoke", .timeLimit(.minutes(2)))
struct SmokeTests {
    @Test("stub round trip")
    func stub() async throws {
        let server = try await TestServer { server in
            [NBDExport(id: "e", nodeName: "n", name: "disk", isWritable: true, backend: BlockBackend(stub: 64 << 20), contexts: [server.context])]
        }
        print(try await server.client { _ in try run("nbdinfo", [server.uri]) })
        let ok = try await server.client { path in
            let client = try RawClient(path)
            try client.enter("disk")
            let data = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) }
            guard try client.write(at: 5, data) == 0 else { return false }
            guard try client.write(at: 5000, Array(data[4995..<9000])) == 0 else { return false }
            return try client.readStructured(at: 5, 300_000) == data
        }
        #expect(ok)
        print(try await server.client { _ in try run("fio", ["--name=x", "--ioengine=nbd", "--uri=" + server.uri + "", "--rw=randwrite", "--bs=4k", "--iodepth=16", "--size=32m", "--verify=crc32c", "--do_verify=1"]) })
        await server.stop()
        #expect(server.deleted.value.withLock { $0 } == ["e"])
    }
}
