import BlockGraph
import Foundation
import Glibc
import QCOW2Testing
import StrataBase
import Testing

@Suite("qcow2 clusters in the host file")
struct HostFileRangeTests {
    @Test("the place that is named for a range holds the range's data, until a cluster is freed")
    func places() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        let clusterSize = 4096, clusters = 64
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", path, String(clusters * clusterSize)])
        let commands = (0..<clusters).reversed().filter { $0 % 5 != 0 }.flatMap { ["-c", "write -P \($0) \($0 * clusterSize) \(clusterSize)"] }
        try run("qemu-io", ["-f", "qcow2"] + commands + [path])
        try await onContext { context in
            try await withImage(imageOptions(path), context) { disk in
                for cluster in 0..<clusters {
                    let range = GuestRange(GuestOffset(cluster * clusterSize + 100), byteCount: 2000)
                    let place = disk.hostFileRange(of: range)
                    #expect((place != nil) == (cluster % 5 != 0))
                    guard let place else { continue }
                    var bytes = [UInt8](repeating: 0xff, count: 2000)
                    #expect(pread(place.descriptor, &bytes, 2000, place.offset) == 2000)
                    #expect(bytes == [UInt8](repeating: UInt8(cluster), count: 2000))
                }
                try await disk.discard(GuestRange(GuestOffset(clusterSize), byteCount: clusterSize))
                #expect(disk.hostFileRange(of: GuestRange(GuestOffset(2 * clusterSize), byteCount: 100)) == nil)
            }
        }
    }
}
