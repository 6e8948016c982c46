import BlockEncryption
import IOCore
import StorageSchema
import StrataBase
import Testing

@Suite("key slots")
struct KeySlotTests {
    static let old = Array("old".utf8), new = Array("new".utf8), other = Array("other".utf8)

    static func formatted(_ options: QCryptoBlockCreateOptionsLUKS = .init(cipherAlg: .aes128, cipherMode: .cbc, iterTime: 0)) async throws -> (JournalledArea, [UInt8]) {
        let area = JournalledArea([UInt8](repeating: 0, count: try options.headerSize()))
        let (_, key) = try await LUKSLayout.format(area, options, password: old)
        return (area, key)
    }

    static func change(_ options: QCryptoBlockAmendOptionsLUKS, isForced: Bool = false) throws -> KeySlotChange {
        try KeySlotChange(options, isForced: isForced) { id throws(BlockError) in Array(id.utf8) }
    }

    static func opens(_ password: [UInt8], _ area: JournalledArea, _ key: [UInt8]) async throws -> Bool {
        let layout = try await LUKSLayout(readingFrom: area)
        do {
            let found = try await layout.masterKey(password: password, in: area)
            #expect(found == key, "a wrong key was taken for the right one")
            return true
        } catch { return false }
    }

    @Test(
        "a password opens what was made with it, and no other does",
        arguments: [
            QCryptoBlockCreateOptionsLUKS(iterTime: 0), .init(cipherAlg: .aes128, iterTime: 0), .init(cipherAlg: .aes192, cipherMode: .cbc, hashAlg: .sha1, iterTime: 0),
            .init(cipherAlg: .aes256, cipherMode: .ecb, hashAlg: .sha512, iterTime: 0),
            .init(cipherMode: .cbc, ivgenAlg: .essiv, ivgenHashAlg: .sha256, hashAlg: .sha384, iterTime: 0),
            .init(cipherAlg: .aes128, cipherMode: .cbc, ivgenAlg: .essiv, ivgenHashAlg: .md5, hashAlg: .md5, iterTime: 0),
            .init(ivgenAlg: .plain, hashAlg: .sha224, iterTime: 0),
        ])
    func unlocking(_ options: QCryptoBlockCreateOptionsLUKS) async throws {
        let (area, key) = try await Self.formatted(options)
        #expect(try await Self.opens(Self.old, area, key))
        #expect(try await !Self.opens(Self.new, area, key))
    }

    @Test("slots are filled in order and erased by number or password; what would lose the disk is refused unless forced")
    func changes() async throws {
        let (area, key) = try await Self.formatted()
        var layout = try await LUKSLayout(readingFrom: area)
        func apply(_ options: QCryptoBlockAmendOptionsLUKS, isForced: Bool = false) async throws -> String? {
            do {
                try await layout.change(try Self.change(options, isForced: isForced), openedWith: Self.old, in: area)
                #expect(try await LUKSLayout(readingFrom: area) == layout, "what is in memory is not what is on disk")
                return nil
            } catch let error as BlockError { return error.message }
        }
        func active() -> [Int] { layout.header.slots.indices.filter { layout.header.slots[$0].isActive } }
        #expect(try await apply(.init(state: .active, newSecret: "new", iterTime: 0)) == nil)
        #expect(try await apply(.init(state: .active, newSecret: "other", keyslot: 5, iterTime: 0)) == nil)
        #expect(active() == [0, 1, 5])
        for password in [Self.old, Self.new, Self.other] { #expect(try await Self.opens(password, area, key)) }
        #expect(try await apply(.init(state: .active, newSecret: "x", keyslot: 5, iterTime: 0)) == "Refusing to overwrite active keyslot 5 - please erase it first")
        #expect(try await apply(.init(state: .inactive, oldSecret: "wrong")) == "No keyslots match given (old) password for erase operation")
        #expect(try await apply(.init(state: .inactive, oldSecret: "wrong", keyslot: 1)) == "Given keyslot 1 doesn't contain the given old password for erase operation")
        #expect(try await apply(.init(state: .inactive, keyslot: 3)) == "Given keyslot 3 is already erased (inactive) ")
        #expect(try await apply(.init(state: .inactive, oldSecret: "new")) == nil)
        #expect(try await apply(.init(state: .active, newSecret: "new", keyslot: 5, iterTime: 0), isForced: true) == nil)
        #expect(try await !Self.opens(Self.other, area, key))
        #expect(active() == [0, 5])
        for _ in 0..<6 { #expect(try await apply(.init(state: .active, newSecret: "more", iterTime: 0)) == nil) }
        #expect(try await apply(.init(state: .active, newSecret: "more", iterTime: 0)) == "Can't add a keyslot - all keyslots are in use")
        #expect(try await apply(.init(state: .inactive, oldSecret: "more")) == nil)
        #expect(try await apply(.init(state: .inactive, keyslot: 5)) == nil)
        #expect(try await apply(.init(state: .inactive, keyslot: 0))?.hasPrefix("Attempt to erase the only active keyslot 0") == true)
        #expect(try await apply(.init(state: .inactive, oldSecret: "old"))?.hasPrefix("All the active keyslots match") == true)
        #expect(try await apply(.init(state: .inactive, keyslot: 0), isForced: true) == nil)
        #expect(try await !Self.opens(Self.old, area, key))
    }

    @Test(
        "after a crash at any moment of a change the other passwords still open the disk, and each slot opens it or does not exist",
        arguments: [
            (QCryptoBlockAmendOptionsLUKS(state: .active, newSecret: "new", keyslot: 6, iterTime: 0), false),
            (QCryptoBlockAmendOptionsLUKS(state: .inactive, keyslot: 1), false),
            (QCryptoBlockAmendOptionsLUKS(state: .active, newSecret: "new", keyslot: 1, iterTime: 0), true),
        ])
    func crashes(_ options: QCryptoBlockAmendOptionsLUKS, isForced: Bool) async throws {
        let (area, key) = try await Self.formatted()
        var layout = try await LUKSLayout(readingFrom: area)
        try await layout.change(try Self.change(.init(state: .active, newSecret: "other", keyslot: 1, iterTime: 0)), openedWith: Self.old, in: area)
        let before = area.bytes
        let start = area.journal.count
        try await layout.change(try Self.change(options, isForced: isForced), openedWith: Self.old, in: area)
        let states = JournalledArea.crashStates(of: before, Array(area.journal[start...]), seed: 42)
        #expect(states.count > 10)
        for (number, state) in states.enumerated() {
            let crashed = JournalledArea(state)
            #expect(try await Self.opens(Self.old, crashed, key), "crash state \(number)")
            let left = try await LUKSLayout(readingFrom: crashed)
            let isNew = try await Self.opens(Self.new, crashed, key)
            let slot = options.keyslot ?? 0
            if options.state == .active, left.header.slots[slot].isActive, slot == 6 { #expect(isNew, "crash state \(number): a slot that opens nothing") }
        }
    }

    @Test("a change that fails at any write or flush leaves every password as it was", arguments: [false, true])
    func faults(applies: Bool) async throws {
        let changes: [(QCryptoBlockAmendOptionsLUKS, Bool)] = [
            (.init(state: .active, newSecret: "new", iterTime: 0), false), (.init(state: .inactive, keyslot: 1), false),
            (.init(state: .active, newSecret: "new", keyslot: 1, iterTime: 0), true),
        ]
        for (options, isForced) in changes {
            var call = 0
            while true {
                let (area, key) = try await Self.formatted()
                var layout = try await LUKSLayout(readingFrom: area)
                try await layout.change(try Self.change(.init(state: .active, newSecret: "other", keyslot: 1, iterTime: 0)), openedWith: Self.old, in: area)
                let before = layout
                let start = area.calls
                area.failCall(call, applies: applies)
                do {
                    try await layout.change(try Self.change(options, isForced: isForced), openedWith: Self.old, in: area)
                    #expect(area.calls - start <= call, "the fault was swallowed")
                    break
                } catch {}
                #expect(layout == before)
                for password in [Self.old, Self.other] { #expect(try await Self.opens(password, area, key), "\(options), call \(call)") }
                #expect(try await !Self.opens(Self.new, area, key))
                try await layout.change(try Self.change(options, isForced: isForced), openedWith: Self.old, in: area)
                call += 1
            }
            #expect(call >= 4)
        }
    }
}
