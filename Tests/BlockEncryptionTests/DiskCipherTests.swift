import IOCore
import StrataBase
import Testing

@Suite("ciphers of disks")
struct DiskCipherTests {
    /// IEEE Std 1619-2007, annex B, vector 1 has a data unit of 32 bytes; vector 4 has one of 512: bytes 0 to 255 twice, data unit 0.
    @Test("XTS-AES-128 gives the first and last bytes of the standard's vector 4")
    func standardVector() throws {
        let key1: [UInt8] = [0x27, 0x18, 0x28, 0x18, 0x28, 0x45, 0x90, 0x45, 0x23, 0x53, 0x60, 0x28, 0x74, 0x71, 0x35, 0x26]
        let key2: [UInt8] = [0x31, 0x41, 0x59, 0x26, 0x53, 0x58, 0x97, 0x93, 0x23, 0x84, 0x62, 0x64, 0x33, 0x83, 0x27, 0x95]
        let cipher = try DiskCipher(.xts, .plain64, key: key1 + key2)
        let plain = IOBuffer(copying: (0..<512).map { UInt8(truncatingIfNeeded: $0) })
        let target = IOBuffer(byteCount: 512)
        try cipher.encrypt(plain.vector, into: target.vector, at: 0)
        let found = target.copyToArray()
        #expect(Array(found[..<16]) == [0x27, 0xa7, 0x47, 0x9b, 0xef, 0xa1, 0xd4, 0x76, 0x48, 0x9f, 0x30, 0x8c, 0xd4, 0xcf, 0xa6, 0xe2])
        try cipher.decrypt(target.vector, at: 0)
        #expect(target.copyToArray() == plain.copyToArray())
    }

    @Test("data in pieces that divide sectors is encrypted as data in one piece is", arguments: DiskCipher.Mode.allCases)
    func pieces(mode: DiskCipher.Mode) throws {
        let cipher = try DiskCipher(mode, .essiv(.sha256), key: (0..<(mode == .xts ? 64 : 32)).map { UInt8($0 * 3) })
        let data = IOBuffer(copying: (0..<4096).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) })
        let whole = IOBuffer(byteCount: 4096), parts = IOBuffer(byteCount: 4096)
        try cipher.encrypt(data.vector, into: whole.vector, at: 1 << 41)
        let list = VectorList([data.vector(at: 0, byteCount: 100), data.vector(at: 100, byteCount: 1436), data.vector(at: 1536, byteCount: 2560)])
        try cipher.encrypt(list.vector, into: parts.vector, at: 1 << 41)
        #expect(parts.copyToArray() == whole.copyToArray())
        #expect(whole.copyToArray() != data.copyToArray())
        let target = IOBuffer(copying: whole.copyToArray())
        let targets = VectorList([target.vector(at: 0, byteCount: 512), target.vector(at: 512, byteCount: 7), target.vector(at: 519, byteCount: 3577)])
        try cipher.decrypt(targets.vector, at: 1 << 41)
        #expect(target.copyToArray() == data.copyToArray())
        withExtendedLifetime((data, whole, parts, list, target, targets)) {}
    }

    @Test("each sector has a vector of its own, of 32 or 64 bits")
    func vectors() throws {
        let zeroes = IOBuffer(zeroed: 1024), first = IOBuffer(byteCount: 1024), second = IOBuffer(byteCount: 1024)
        let key = [UInt8](repeating: 9, count: 64)
        let wide = try DiskCipher(.xts, .plain64, key: key), narrow = try DiskCipher(.xts, .plain, key: key)
        try wide.encrypt(zeroes.vector, into: first.vector, at: 0)
        #expect(first.copyToArray()[..<512] != first.copyToArray()[512...])
        try wide.encrypt(zeroes.vector, into: second.vector, at: 512 << 32)
        #expect(first.copyToArray() != second.copyToArray())
        try narrow.encrypt(zeroes.vector, into: second.vector, at: 512 << 32)
        #expect(first.copyToArray() == second.copyToArray())
        withExtendedLifetime((zeroes, first, second)) {}
    }

    @Test("keys of impossible lengths are refused")
    func keys() {
        for count in [0, 8, 17, 33] { #expect(throws: BlockError.self) { try DiskCipher(.cbc, .plain, key: [UInt8](repeating: 1, count: count)) } }
        #expect(throws: BlockError.self) { try DiskCipher(.xts, .plain, key: [UInt8](repeating: 1, count: 48)) }
        #expect(throws: BlockError.self) { try DiskCipher(.cbc, .essiv(.sha1), key: [UInt8](repeating: 1, count: 32)) }
    }
}
