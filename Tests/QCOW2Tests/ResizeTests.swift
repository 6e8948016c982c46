import BlockGraph
import Foundation
import QCOW2Testing
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

@Suite("growing qcow2 images")
struct ResizeTests {
    private static func rawBytes(_ path: String, _ scratch: Scratch) throws -> [UInt8] {
        let raw = scratch.file("out.raw")
        try run("qemu-img", ["convert", "-O", "raw", path, raw])
        return [UInt8](try Data(contentsOf: URL(fileURLWithPath: raw)))
    }

    @Test("refcount blocks and the refcount table grow with the file", arguments: [(512, 64), (512, 16), (512, 1), (4096, 64)])
    func refcountGrowth(clusterSize: Int, refcountBits: Int) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        let size = clusterSize == 512 ? 9 << 20 : 24 << 20
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=\(clusterSize),refcount_bits=\(refcountBits)", path, String(size)])
        let seed = SeededGenerator(seed: 3)
        let expected = try await onContext { context in
            try await withImage(imageOptions(path), context) { disk in
                var random = seed
                var model = [UInt8](repeating: 0, count: size)
                var position = 0
                while position < size {
                    let count = min(size - position, Int.random(in: 1...400_000, using: &random))
                    let data = [UInt8](repeating: UInt8.random(in: 1...255, using: &random), count: count)
                    model.replaceSubrange(position..<(position + count), with: data)
                    try await disk.writeBytes(data, at: position)
                    position += count
                    if position % 3 == 0 { try await disk.flush() }
                }
                return model
            }
        }
        try run("qemu-img", ["check", path])
        #expect(firstDifference(try Self.rawBytes(path, scratch), expected) == nil)
    }

    @Test("a disk that grows reads as zeroes behind its old end, one that shrinks keeps its beginning", arguments: [512, 65536], [0, 1])
    func resize(clusterSize: Int, depth: Int) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2"), base = scratch.file("base.qcow2")
        let size = 700 * 1024 + 512
        var arguments = ["create", "-q", "-f", "qcow2", "-o", "cluster_size=\(clusterSize)"]
        if depth == 1 {
            try run("qemu-img", ["create", "-q", "-f", "qcow2", base, "4M"])
            try run("qemu-io", ["-f", "qcow2", "-c", "write -P 44 0 4M", base])
            arguments += ["-b", base, "-F", "qcow2"]
        }
        try run("qemu-img", arguments + [path, String(size)])
        let fill: UInt8 = depth == 1 ? 44 : 0
        let expected = try await onContext { context in
            try await withImage(imageOptions(path), context) { disk in
                var model = [UInt8](repeating: fill, count: size)
                try await disk.writeBytes([UInt8](repeating: 9, count: 5000), at: size - 5000)
                model.replaceSubrange((size - 5000)..<size, with: [UInt8](repeating: 9, count: 5000))
                for newSize in [3 << 20, 500 * 1024 - 512, 6 << 20, 1 << 20, (9 << 20) + 1024] {
                    try await disk.resize(to: newSize)
                    #expect(disk.length == newSize)
                    if newSize < model.count { model.removeLast(model.count - newSize) } else { model += [UInt8](repeating: 0, count: newSize - model.count) }
                    let read = try await disk.readBytes(at: 0, newSize)
                    if let difference = firstDifference(read, model) { throw ToolFailure(description: "after resize to \(newSize): \(difference)") }
                    try await disk.writeBytes([7, 7, 7], at: newSize - 700)
                    model.replaceSubrange((newSize - 700)..<(newSize - 697), with: [7, 7, 7])
                }
                return model
            }
        }
        try run("qemu-img", ["check", path])
        #expect(firstDifference(try Self.rawBytes(path, scratch), expected) == nil)
    }

    @Test("an L1 table that takes more clusters than a refcount block counts finds its place", arguments: [(16, nil), (16, 2048), (64, 2048)] as [(Int, Int?)])
    func longTables(refcountBits: Int, refcountCacheSize: Int?) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=512,refcount_bits=\(refcountBits)", path, "1M"])
        try await onContext { context in
            try await withImage(imageOptions(path, refcountCacheSize: refcountCacheSize), context) { disk in
                try await disk.writeBytes([UInt8](repeating: 1, count: 1 << 20), at: 0)
                // Free clusters here and there, none of them long enough.
                for number in 0..<50 { try await disk.discard(GuestRange(GuestOffset(number * 20 << 10), byteCount: 512)) }
                try await disk.flush()
                for size in [1 << 29, 1 << 31] {
                    try await disk.resize(to: size)
                    try await disk.writeBytes([7, 7, 7], at: size - 700)
                }
                #expect(try await disk.readBytes(at: (1 << 29) - 700, 4) == [7, 7, 7, 0])
            }
        }
        #expect(try run("qemu-img", ["check", path]).contains("No errors were found"))
        let text = try run("qemu-io", ["-f", "qcow2", "-c", "read -P 7 \((1 << 31) - 700) 3", "-c", "read -P 1 512 10k", "-c", "read -P 0 20k 512", path])
        #expect(!text.contains("verification failed"), "\(text)")
    }

    @Test("a disk that cannot grow over a longer backing file keeps its size, and grows when it is tried again", arguments: ["0.10", "1.1"])
    func failedGrowth(compat: String) async throws {
        let scratch = try Scratch()
        let (path, base) = (scratch.file("a.qcow2"), scratch.file("base.raw"))
        let (old, new) = ((1000 << 10) + 512, 3 << 20)
        try run("qemu-img", ["create", "-q", "-f", "raw", base, "4M"])
        try run("qemu-io", ["-f", "raw", "-c", "write -P 44 0 4M", base])
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=4k,compat=\(compat)", path, String(old)])
        let image = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        // Call 0 does not come: it counts the others.
        var (call, calls, failures) = (0, 0, 0)
        while call <= calls {
            let recorder = Recorder(disk: image)
            defer { recorder.forget() }
            recorder.state.withLock { $0.isRecording = false }
            var options = recorder.imageOptions()
            guard case .qcow2(var own) = options.branch else { return }
            own.backing = .definition(BlockdevOptions(.raw(BlockdevOptionsRaw(file: .definition(BlockdevOptions(.file(BlockdevOptionsFile(filename: base))))))))
            options.branch = .qcow2(own)
            let (failing, wanted) = (call, options)
            let (made, hasFailed) = try await onContext { context in
                try await withImage(wanted, context) { disk in
                    recorder.state.withLock { ($0.calls, $0.failAt) = (0, failing) }
                    var hasFailed = false
                    do { try await disk.resize(to: new) } catch {
                        hasFailed = true
                        #expect(disk.length == old, "call \(failing) failed")
                        try await disk.resize(to: new)
                    }
                    let made = recorder.state.withLock { state in
                        state.failAt = nil
                        return state.calls
                    }
                    let all = try await disk.readBytes(at: 0, new)
                    #expect(all[..<old].allSatisfy { $0 == 44 } && all[old...].allSatisfy { $0 == 0 }, "call \(failing) failed")
                    return (made, hasFailed)
                }
            }
            if call == 0 { calls = made }
            if hasFailed { failures += 1 }
            call += 1
        }
        // Some calls are tried again in another way.
        #expect(failures > 0, "\(failures) of \(calls)")
    }
}
