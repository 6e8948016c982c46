import BlockEncryption
import IOCore
import StorageSchema
import StrataBase
import StrataTesting
import Testing

@Suite("LUKS headers")
struct LUKSHeaderTests {
    /// A header whose every field is known.
    static func sample() async throws -> [UInt8] {
        let options = QCryptoBlockCreateOptionsLUKS(iterTime: 0)
        let area = JournalledArea([UInt8](repeating: 0, count: try options.headerSize()))
        _ = try await LUKSLayout.format(area, options, password: Array("secret".utf8))
        return Array(area.bytes[..<LUKSHeader.encodedSize])
    }

    @Test("fields lie where the specification puts them, and a header survives decoding and encoding")
    func layout() async throws {
        let bytes = try await Self.sample()
        #expect(Array(bytes[0..<8]) == [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe, 0, 1])
        #expect(Array(bytes[8..<12]) == Array("aes\0".utf8))
        #expect(Array(bytes[40..<52]) == Array("xts-plain64\0".utf8))
        #expect(Array(bytes[72..<79]) == Array("sha256\0".utf8))
        #expect(Array(bytes[104..<112]) == [0, 0, 0x0f, 0xc8, 0, 0, 0, 64])
        #expect(Array(bytes[208..<212]) == [0x00, 0xac, 0x71, 0xf3])
        #expect(Array(bytes[248..<256]) == [0, 0, 0, 8, 0, 0, 0x0f, 0xa0])
        #expect(Array(bytes[256..<260]) == [0, 0, 0xde, 0xad])
        let header = try LUKSHeader(decoding: bytes)
        #expect(header.encoded() == bytes)
        #expect(header.uuid.utf8.count == 36)
        #expect(header.slots.map(\.isActive) == [true] + [Bool](repeating: false, count: 7))
    }

    struct Damage: Sendable, CustomTestStringConvertible {
        let offset: Int
        let bytes: [UInt8]
        let message: String
        var testDescription: String { message }

        init(_ offset: Int, _ bytes: [UInt8], _ message: String) { (self.offset, self.bytes, self.message) = (offset, bytes, message) }
        init(_ offset: Int, _ text: String, _ message: String) { self.init(offset, Array(text.utf8), message) }
        init(_ offset: Int, word: UInt32, _ message: String) {
            self.init(offset, (0..<4).map { UInt8(truncatingIfNeeded: word >> UInt32(24 - 8 * $0)) }, message)
        }

        static let slot0 = 208, slot1 = 256
        /// The words are those of qemu-img 10.0 where it refuses the same.
        static let all = [
            Damage(0, "X", "Volume is not in LUKS format"), Damage(6, [0, 2], "LUKS version 2 is not supported"),
            Damage(8, "foo\0", "Algorithm 'foo' with key size 32 bytes not supported"),
            Damage(8, String(repeating: "a", count: 32), "LUKS header cipher name is not NUL terminated"),
            Damage(40, String(repeating: "a", count: 32), "LUKS header cipher mode is not NUL terminated"),
            Damage(40, "xts\0", "Unexpected cipher mode string format 'xts'"), Damage(40, "foo-plain64\0", "Cipher mode 'foo' not supported"),
            Damage(40, "xts-foo\0", "IV generator 'foo' not supported"), Damage(40, "cbc-essiv:foo\0", "Hash algorithm 'foo' not supported"),
            Damage(40, "cbc-essiv\0", "Hash algorithm is missing in the IV generator 'essiv'"),
            Damage(72, "foo\0", "Hash algorithm 'foo' not supported"),
            Damage(72, String(repeating: "a", count: 32), "LUKS header hash spec is not NUL terminated"),
            Damage(104, word: 0, "LUKS payload is overlapping with the header"), Damage(104, word: 8, "Keyslot 0 is overlapping with the encrypted payload"),
            Damage(108, word: 0, "Algorithm 'aes' with key size 0 bytes not supported"),
            Damage(108, word: 17, "Algorithm 'aes' with key size 8 bytes not supported"),
            Damage(108, word: 48, "Algorithm 'aes-192' not supported in mode 'xts'"),
            Damage(108, word: .max, "Keyslot 0 is overlapping with the encrypted payload"),
            Damage(164, word: 0, "LUKS key iteration count is zero"),
            Damage(164, word: .max, "LUKS key iteration count 4294967295 is larger than 268435456"),
            Damage(slot0, word: 5, "Keyslot 0 state (active/disable) is corrupted"), Damage(slot0 + 4, word: 0, "Keyslot 0 iteration count is zero"),
            Damage(slot0 + 4, word: .max, "Keyslot 0 iteration count 4294967295 is larger than 268435456"),
            Damage(slot0 + 40, word: 0, "Keyslot 0 is overlapping with the LUKS header"),
            Damage(slot0 + 40, word: .max, "Keyslot 0 is overlapping with the encrypted payload"),
            Damage(slot0 + 40, word: 512, "Keyslots 0 and 1 are overlapping in the header"),
            Damage(slot0 + 44, word: 0, "Keyslot 0 is corrupted (stripes 0 != 4000)"),
            Damage(slot1 + 44, word: .max, "Keyslot 1 is corrupted (stripes 4294967295 != 4000)"),
        ]
    }

    @Test("a damaged field is named", arguments: Damage.all)
    func damage(_ damage: Damage) async throws {
        var bytes = try await Self.sample()
        bytes.replaceSubrange(damage.offset..<damage.offset + damage.bytes.count, with: damage.bytes)
        do {
            _ = try LUKSLayout(try LUKSHeader(decoding: bytes))
            Issue.record("the header was taken")
        } catch { #expect(error.message == damage.message) }
    }

    @Test("key slots behind the end of their area are refused, and so is a header that is cut off")
    func areaEnds() async throws {
        let bytes = try await Self.sample()
        let header = try LUKSHeader(decoding: bytes)
        #expect(throws: BlockError.self) { try LUKSLayout(header, areaSize: 200_000) }
        for count in 0..<LUKSHeader.encodedSize { #expect(throws: BlockError.self) { try LUKSHeader(decoding: Array(bytes[..<count])) } }
    }

    @Test("any bytes are a header or an error", arguments: [1, 2, 3] as [UInt64])
    func noise(seed: UInt64) async throws {
        let sound = try await Self.sample()
        var random = SeededGenerator(seed: seed)
        for _ in 0..<2000 {
            var bytes = sound
            for _ in 0...random.next() % 4 {
                let position = 6 + Int(random.next() % UInt64(bytes.count - 6))
                bytes[position] = [0, 0xff, 0x80, UInt8(truncatingIfNeeded: random.next())][Int(random.next() & 3)]
            }
            do throws(BlockError) { _ = try LUKSLayout(try LUKSHeader(decoding: bytes)).description } catch {}
        }
    }
}
