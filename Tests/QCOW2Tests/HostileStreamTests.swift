import BlockGraph
import Foundation
import IOCore
import QCOW2Testing
import StorageSchema
import StrataBase
import StrataTesting
import Testing

@Suite("hostile compressed clusters")
struct HostileStreamTests {
    static let clusterSize = 4096

    /// An image with one compressed cluster, where its stream lies, and where its L2 entry is.
    static func image(_ type: String, _ scratch: Scratch) throws -> (bytes: [UInt8], stream: Int, entry: Int) {
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=\(clusterSize),compression_type=\(type)", path, "1M"])
        try run("qemu-io", ["-f", "qcow2", "-c", "write -c -P 3 0 \(clusterSize)", path])
        let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        func word(_ offset: Int) -> UInt64 { bytes[offset..<(offset + 8)].reduce(0) { $0 << 8 | UInt64($1) } }
        let entry = Int(word(Int(word(40))) & 0x00ff_ffff_ffff_fe00)
        return (bytes, Int(word(entry) & ((1 << 58) - 1)), entry)
    }

    static func read(_ bytes: [UInt8], _ context: IOContext) async throws -> [UInt8] {
        let recorder = Recorder(disk: bytes)
        defer { recorder.forget() }
        return try await withImage(recorder.imageOptions(readOnly: true), context) { try await $0.readBytes(at: 0, clusterSize) }
    }

    @Test("any damage to a stream is a clear error or other data, never memory of somebody else", arguments: ["zlib", "zstd"])
    func damage(type: String) async throws {
        let scratch = try Scratch()
        let (sound, stream, _) = try Self.image(type, scratch)
        try await onContext { context in
            let whole = try await Self.read(sound, context)
            #expect(whole == [UInt8](repeating: 3, count: Self.clusterSize))
            var random = SeededGenerator(seed: 11)
            var errors = 0
            for _ in 0..<300 {
                var bytes = sound
                if bytes.count < stream + 64 { bytes += [UInt8](repeating: 0, count: stream + 64 - bytes.count) }
                for _ in 0..<Int.random(in: 1...3, using: &random) {
                    bytes[stream + Int.random(in: 0..<24, using: &random)] = UInt8.random(in: 0...255, using: &random)
                }
                do {
                    let read = try await Self.read(bytes, context)
                    #expect(read.count == Self.clusterSize)
                } catch {
                    errors += 1
                    #expect((error as? BlockError)?.code == .corruptImage, "\(error)")
                }
            }
            #expect(errors > 100)
        }
    }

    @Test("a stream that ends early is an error that says so", arguments: ["zlib", "zstd"])
    func short(type: String) async throws {
        let scratch = try Scratch()
        let (sound, stream, _) = try Self.image(type, scratch)
        // One that is sound and makes 512 bytes only.
        let path = scratch.file("small.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=512,compression_type=\(type)", path, "1M"])
        try run("qemu-io", ["-f", "qcow2", "-c", "write -c -P 3 0 512", path])
        let small = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        func word(_ offset: Int) -> UInt64 { small[offset..<(offset + 8)].reduce(0) { $0 << 8 | UInt64($1) } }
        let from = Int(word(Int(word(Int(word(40))) & 0x00ff_ffff_ffff_fe00)) & ((1 << 61) - 1))
        try await onContext { context in
            var bytes = sound
            let piece = small[from..<min(small.count, from + 100)]
            bytes.replaceSubrange(stream..<min(bytes.count, stream + piece.count), with: piece.prefix(bytes.count - stream))
            let damaged = bytes
            let error = await #expect(throws: BlockError.self) { try await Self.read(damaged, context) }
            #expect(error?.code == .corruptImage && error?.description.contains("compressed cluster") == true, "\(String(describing: error))")
        }
    }

    @Test("a zstd frame that asks for a huge window, or says it is longer than its cluster, costs no memory", arguments: [UInt64(1) << 40, 1 << 20])
    func window(contentSize: UInt64) async throws {
        let scratch = try Scratch()
        let (sound, stream, _) = try Self.image("zstd", scratch)
        try await onContext { context in
            var bytes = sound
            if bytes.count < stream + 512 { bytes += [UInt8](repeating: 0, count: stream + 512 - bytes.count) }
            // RFC 8878: magic, descriptor (8-byte content size, no single segment), window descriptor (2^41 bytes), content size; one RLE block.
            var frame: [UInt8] = [0x28, 0xb5, 0x2f, 0xfd, 0xc0, 31 << 3]
            for shift in stride(from: UInt64(0), to: 64, by: 8) { frame.append(UInt8(truncatingIfNeeded: contentSize >> shift)) }
            let block = UInt32(Self.clusterSize) << 3 | 1 << 1 | 1
            frame += [UInt8(truncatingIfNeeded: block), UInt8(truncatingIfNeeded: block >> 8), UInt8(truncatingIfNeeded: block >> 16), 5]
            bytes.replaceSubrange(stream..<(stream + frame.count), with: frame)
            let damaged = bytes
            let error = await #expect(throws: BlockError.self) { try await Self.read(damaged, context) }
            #expect(error?.code == .corruptImage)
        }
    }

    @Test("an entry that leads beyond the end of the file is an error, whatever it claims", arguments: ["zlib", "zstd"])
    func beyond(type: String) async throws {
        let scratch = try Scratch()
        let (sound, _, entry) = try Self.image(type, scratch)
        try await onContext { context in
            let compressed: UInt64 = 1 << 62
            // The last one begins in the file's last byte and claims all the sectors that an entry can claim.
            let lastByte = UInt64(sound.count - 1) | 15 << 58
            let places: [UInt64] = [1 << 40, 0x3fff_ffff_ffff_ffff, (1 << 58) - 1, 0xffff_ffff_ffff, lastByte]
            for place in places {
                let value = compressed | place
                var bytes = sound
                for i in 0..<8 { bytes[entry + i] = UInt8(truncatingIfNeeded: value >> UInt64(56 - 8 * i)) }
                let damaged = bytes
                let error = await #expect(throws: BlockError.self) { try await Self.read(damaged, context) }
                #expect(error?.code == .corruptImage)
            }
        }
    }

    @Test("a deflate stream that goes on after the cluster is full is read, as QEMU reads it")
    func longer() async throws {
        let scratch = try Scratch()
        let (sound, stream, _) = try Self.image("zlib", scratch)
        let path = scratch.file("large.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=65536", path, "1M"])
        try run("qemu-io", ["-f", "qcow2", "-c", "write -c -P 77 0 65536", path])
        let large = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        func word(_ offset: Int) -> UInt64 { large[offset..<(offset + 8)].reduce(0) { $0 << 8 | UInt64($1) } }
        let from = Int(word(Int(word(Int(word(40))) & 0x00ff_ffff_ffff_fe00)) & ((1 << 54) - 1))
        var bytes = sound
        let piece = Array(large[from..<min(large.count, from + 400)])
        bytes += [UInt8](repeating: 0, count: max(0, stream + 512 - bytes.count))
        bytes.replaceSubrange(stream..<(stream + piece.count), with: piece)
        let changed = scratch.file("changed.qcow2")
        try Data(bytes).write(to: URL(fileURLWithPath: changed))
        try run("qemu-io", ["-r", "-f", "qcow2", "-c", "read -P 77 0 \(Self.clusterSize)", changed])
        let image = bytes
        let read = try await onContext { try await Self.read(image, $0) }
        #expect(read == [UInt8](repeating: 77, count: Self.clusterSize))
    }
}
