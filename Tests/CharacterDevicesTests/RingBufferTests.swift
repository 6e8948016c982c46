import CharacterDevices
import IOCore
import ManagedObjects
import QAPIRuntime
import StorageSchema
import StrataBase
import Testing

@Suite("ring buffer")
struct RingBufferTests {
    /// A device of the given size, made as `chardev-add` makes it.
    private static func buffer(_ size: Int) async throws -> RingBufferChardev {
        let context = try IOContext.startThread(name: "ring buffer")
        defer { context.stop() }
        let factory = ChardevFactory(context: context, origin: .monitor, objects: ObjectRegistry()) {}
        let device = try await ChardevTable().add("r", ChardevBackend(decoding: ["type": "ringbuf", "data": ["size": .integer(size)]]), factory)
        return try #require(device as? RingBufferChardev)
    }

    @Test("random writes and reads give what a plain queue of the last bytes gives", arguments: 1...10)
    func againstModel(seed: UInt64) async throws {
        var random = seed
        func next(_ limit: Int) -> Int {
            random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(random >> 33) % limit
        }
        let size = 1 << next(8)
        let buffer = try await Self.buffer(size)
        var model: [UInt8] = []
        for _ in 0..<2000 {
            if next(2) == 0 {
                let bytes = (0..<next(3 * size)).map { _ in UInt8(next(256)) }
                buffer.write(bytes)
                model = (model + bytes).suffix(size)
            } else {
                let count = next(2 * size) + 1
                #expect(buffer.read(count) == Array(model.prefix(count)), "seed \(seed)")
                model.removeFirst(min(count, model.count))
            }
        }
    }
}
