import BlockGraph
import Foundation
import IOCore
import ManagedObjects
import StrataBase
import Testing
import ToolSupport

@Suite("images whose format was guessed")
struct ProbedImageTests {
    private static func withImage<R: Sendable>(
        byteCount: Int = 1 << 20, format: String? = nil, _ body: @escaping @Sendable (OpenImage) async throws -> R
    ) async throws -> R {
        let path = NSTemporaryDirectory() + "/strata-probe-" + UUID().uuidString
        _ = FileManager.default.createFile(atPath: path, contents: Data(count: byteCount))
        defer { try? FileManager.default.removeItem(atPath: path) }
        let context = try IOContext.startThread(name: "probe")
        defer {
            context.stop()
            context.join()
        }
        return try await Task(executorPreference: context) {
            let session = ImageSession(context: context, objects: ObjectRegistry())
            var settings = ImageSettings()
            settings.isReadOnly = false
            let image = try await session.open(ImageReference(named: path, format: format), settings)
            let result = try await body(image)
            try await session.close(image)
            return result
        }.value
    }

    private static func write(_ bytes: [UInt8], at offset: Int, to image: OpenImage) async throws(BlockError) {
        let buffer = IOBuffer(copying: bytes)
        defer { withExtendedLifetime(buffer) {} }
        if image.backend.tryWrite(buffer.vector, at: GuestOffset(offset)) { return }
        try await image.backend.write(buffer.vector, at: GuestOffset(offset))
    }

    private static let signatures: [[UInt8]] = [
        [0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3], Array("LUKS".utf8) + [0xba, 0xbe], Array("conectix".utf8), Array("KDMV".utf8), Array("vhdxfile".utf8),
    ]

    @Test("a raw image that was guessed to be raw cannot be made to look like another format")
    func refused() async throws {
        try await Self.withImage { image in
            for signature in Self.signatures {
                for padding in [0, 512 - signature.count, 4096 - signature.count] {
                    let failure = await #expect(throws: BlockError.self) {
                        try await Self.write(signature + [UInt8](repeating: 0, count: padding), at: 0, to: image)
                    }
                    #expect(failure?.errno == EPERM && failure?.description == "Operation not permitted")
                }
            }
            // In two halves, the first of which means nothing yet.
            try await Self.write([0x51, 0x46], at: 0, to: image)
            await #expect(throws: BlockError.self) { try await Self.write([0x49, 0xfb, 0, 0], at: 2, to: image) }
            // Anywhere else, and anything else, is a guest's own business.
            try await Self.write(Self.signatures[0], at: 512, to: image)
            try await Self.write([1, 2, 3], at: 0, to: image)
            try await Self.write([UInt8](repeating: 7, count: 8192), at: 0, to: image)
            try await image.backend.writeZeroes(GuestRange(GuestOffset(0), byteCount: 4096))
        }
    }

    @Test("whoever names the format may write what they like, and images shorter than a header are no trouble")
    func allowed() async throws {
        try await Self.withImage(format: "raw") { image in
            for signature in Self.signatures { try await Self.write(signature, at: 0, to: image) }
        }
        try await Self.withImage(byteCount: 512) { image in
            try await Self.write([1], at: 0, to: image)
            await #expect(throws: BlockError.self) { try await Self.write(Self.signatures[0], at: 0, to: image) }
        }
    }
}
