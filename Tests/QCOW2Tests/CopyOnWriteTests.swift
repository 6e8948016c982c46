import BlockGraph
import Foundation
import IOCore
import QCOW2Testing
import StrataBase
import Synchronization
import Testing

@Suite("qcow2 writes to parts of new clusters")
struct CopyOnWriteTests {
    static let clusterSize = 4096
    static let clusters = 64

    /// An empty image over a backing file whose first half is data and whose second half is zeroes, both in memory.
    static func make(subclusters: Bool) throws -> (image: Recorder, backing: Recorder, contents: [UInt8]) {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        let size = clusters * clusterSize
        // Subclusters need clusters of 16 KiB.
        let options = subclusters ? "cluster_size=16k,extended_l2=on" : "cluster_size=\(clusterSize)"
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", options, path, String(size)])
        var contents = [UInt8](repeating: 0, count: size)
        for position in 0..<size / 2 { contents[position] = UInt8(truncatingIfNeeded: 1 + position / 512 % 255) }
        let image = Recorder(disk: [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))))
        let backing = Recorder(disk: contents)
        for recorder in [image, backing] { recorder.state.withLock { $0.isSlow = false } }
        return (image, backing, contents)
    }

    /// The sizes of the writes that have reached the image since this was asked last.
    static func takeWrites(_ recorder: Recorder) -> [Int] {
        recorder.state.withLock { state in
            defer { state.log = [] }
            return state.log.compactMap { if case .write(_, let bytes) = $0 { bytes.count } else { nil } }
        }
    }

    static func tryWrite(_ disk: BlockBackend, _ bytes: [UInt8], at offset: Int) -> Bool {
        let buffer = IOBuffer(byteCount: bytes.count)
        defer { withExtendedLifetime(buffer) {} }
        buffer.vector.copyIn(bytes.span.bytes, at: 0)
        return disk.tryWrite(buffer.vector, at: GuestOffset(offset))
    }

    /// What QEMU finds in the image, once all is closed.
    static func check(_ image: Recorder) throws {
        let scratch = try Scratch()
        let path = scratch.file("b.qcow2")
        try Data(image.state.withLock { $0.disk }).write(to: URL(fileURLWithPath: path))
        #expect(try run("qemu-img", ["check", path]).contains("No errors were found"))
    }

    /// Opens an image whose first cluster, of `size` bytes, has just been written to, so that it is ready for writes, and looks at it with QEMU afterwards.
    /// - Parameter body: gets the image, its file, the backing file, and what the disk holds.
    static func withReady(
        subclusters: Bool, _ size: Int, _ body: @escaping @Sendable (BlockBackend, Recorder, Recorder, inout [UInt8]) async throws -> Void
    ) async throws {
        let (image, backing, start) = try Self.make(subclusters: subclusters)
        defer { image.forget(); backing.forget() }
        try await onContext { context in
            try await withImage(image.imageOptions(over: backing), context) { disk in
                var expected = start
                let first = [UInt8](repeating: 200, count: size)
                try await disk.writeBytes(first, at: 0)
                expected.replaceSubrange(0..<size, with: first)
                _ = Self.takeWrites(image)
                try await body(disk, image, backing, &expected)
                #expect(try await disk.readBytes(at: 0, expected.count) == expected)
            }
        }
        try Self.check(image)
    }

    @Test("wait for nothing when what surrounds the data is at hand, take one write, and write no zeroes over zeroes")
    func atOnce() async throws {
        let size = Self.clusterSize
        try await Self.withReady(subclusters: false, size) { disk, image, backing, expected in
            // In the middle, at the start and at the end of a cluster, and across two of them.
            for (number, place) in [(2, 1024..<1536), (4, 0..<512), (6, 3584..<4096), (8, 3000..<5000), (40, 1024..<1536), (42, 100..<4096), (44, 3000..<5000)] {
                let range = number * size + place.lowerBound..<number * size + place.upperBound
                let data = [UInt8](repeating: UInt8(100 + number), count: range.count)
                #expect(Self.tryWrite(disk, data, at: range.lowerBound), "cluster \(number)")
                expected.replaceSubrange(range, with: data)
                let touched = (range.upperBound + size - 1) / size - range.lowerBound / size
                #expect(Self.takeWrites(image) == [number < 32 ? touched * size : range.count], "cluster \(number)")
            }
        }
    }

    @Test("with subclusters copy no more than their own")
    func subclusters() async throws {
        try await Self.withReady(subclusters: true, 16384) { disk, image, backing, expected in
            for (offset, count, written) in [(20000, 100, 512), (40000, 1000, 1024 + 512), (50000, 10, 512), (50100, 20000, 76 + 15360 + 4608)] {
                let data = [UInt8](repeating: 77, count: count)
                #expect(Self.tryWrite(disk, data, at: offset), "offset \(offset)")
                expected.replaceSubrange(offset..<offset + count, with: data)
                #expect(Self.takeWrites(image).reduce(0, +) == written, "offset \(offset)")
            }
        }
    }

    @Test("leave things as they were where what surrounds the data has to be waited for")
    func inVain() async throws {
        let size = Self.clusterSize
        try await Self.withReady(subclusters: false, size) { disk, image, backing, expected in
            backing.state.withLock { $0.isSlow = true }
            #expect(!Self.tryWrite(disk, [1, 2, 3], at: 2 * size + 10))
            #expect(!Self.tryWrite(disk, [1, 2, 3], at: 40 * size + 10))
            #expect(Self.takeWrites(image) == [])
            #expect(try await disk.readBytes(at: 0, expected.count) == expected)
            // What was taken is taken again, and still known to be zero.
            backing.state.withLock { $0.isSlow = false }
            #expect(Self.tryWrite(disk, [1, 2, 3], at: 40 * size + 10))
            #expect(Self.takeWrites(image) == [3])
            backing.state.withLock { $0.isSlow = true }
            try await disk.writeBytes([4, 5], at: 2 * size + 10)
            expected.replaceSubrange(40 * size + 10..<40 * size + 13, with: [1, 2, 3])
            expected.replaceSubrange(2 * size + 10..<2 * size + 12, with: [4, 5])
        }
    }
}
