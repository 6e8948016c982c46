import BlockGraph
import Foundation
import QCOW2
import QCOW2Testing
import StrataBase
import StrataTesting
import Synchronization
import Testing

/// What the defaults cost on images that are much larger than the caches.
@Suite("large qcow2 images")
struct LargeImageTests {
    /// 8 TiB that are mapped everywhere, in half a mebibyte: all L1 entries name one L2 table, all of whose entries name one cluster. Nobody may write to
    /// such an image; to whoever reads it each part of the mapping is another one.
    private static func image() throws -> [UInt8] {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", path, "8T"])
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 5 0 64k", path])
        var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        func word(_ offset: Int) -> Int { bytes[offset..<(offset + 8)].reduce(0) { $0 << 8 | Int($1) } }
        let l1 = word(40), l2 = word(l1) & 0x00ff_ffff_ffff_fe00
        for index in 1..<16384 { bytes.replaceSubrange(l1 + index * 8..<l1 + index * 8 + 8, with: bytes[l1..<l1 + 8]) }
        for index in 1..<8192 { bytes.replaceSubrange(l2 + index * 8..<l2 + index * 8 + 8, with: bytes[l2..<l2 + 8]) }
        return bytes
    }

    @Test("random 4k reads over 8 TiB read 4 KiB of the mapping each at most, and keep 33 MiB of it in memory at most")
    func eightTebibytes() async throws {
        let recorder = Recorder(disk: try Self.image())
        defer { recorder.forget() }
        let reads = 12_000
        try await onContext { context in
            try await withImage(recorder.imageOptions(readOnly: true), context) { disk in
                let driver = try #require(disk.node.driver as? QCOW2Driver)
                #expect(disk.length == 8 << 40)
                recorder.state.withLock { ($0.countsReads, $0.calls, $0.bytesRead) = (true, 0, 0) }
                var random = SeededGenerator(seed: 8)
                for _ in 0..<reads {
                    let start = Int.random(in: 0..<(8 << 40) / 4096, using: &random) * 4096
                    let found = try await disk.readBytes(at: start, 4096)
                    if found.first != 5 || found.last != 5 { Issue.record("other data at \(start)") }
                }
                let (calls, bytes) = recorder.state.withLock { ($0.calls, $0.bytesRead) }
                #expect(calls <= 2 * reads && bytes <= 2 * 4096 * reads, "\(calls) reads of \(bytes) bytes")
                #expect(driver.cachedBytes <= 33 << 20 && driver.cachedBytes > 31 << 20, "\(driver.cachedBytes) bytes")
            }
        }
    }
}
