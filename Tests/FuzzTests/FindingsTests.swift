import Foundation
import FuzzTargets
import Testing

/// What `Scripts/fuzz` has found once stays found: every kept input is run again, and every seed.
///
/// One at a time: the disk of the qcow2 target is one for the process, as a fuzzer has it.
@Suite("fuzz targets", .serialized)
struct FindingsTests {
    private static let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Findings")

    @Test("no kept finding and no seed does harm any more", arguments: fuzzTargets.indices)
    func replay(index: Int) throws {
        let target = fuzzTargets[index]
        let seeds = try target.seeds()
        #expect(!seeds.isEmpty)
        for seed in seeds { target.run(seed) }
        let findings = Self.folder.appending(path: target.name)
        for name in try FileManager.default.contentsOfDirectory(atPath: findings.path).sorted() {
            target.run([UInt8](try Data(contentsOf: findings.appending(path: name))))
        }
    }

    @Test("a few thousand changes of the seeds do no harm", arguments: fuzzTargets.indices)
    func mutations(index: Int) throws {
        let target = fuzzTargets[index]
        let seeds = try target.seeds()
        let words = target.dictionary
        var random = SplitMix(state: 77)
        for _ in 0..<(target.name == "qcow2" ? 300 : 4000) {
            var input = seeds[Int(random.next() % UInt64(seeds.count))]
            for _ in 0..<1 + random.next() % 4 where !input.isEmpty {
                let place = Int(random.next() % UInt64(input.count))
                switch random.next() % 5 {
                case 0: input[place] ^= 1 << UInt8(random.next() % 8)
                case 1: input[place] = [0, 1, 0x7f, 0x80, 0xff][Int(random.next() % 5)]
                case 2:
                    let word = words[Int(random.next() % UInt64(words.count))]
                    input.replaceSubrange(place..<min(input.count, place + word.count), with: word)
                case 3 where target.name != "qcow2": input.remove(at: place)
                default: input.removeLast(Int(random.next() % 16) % input.count)
                }
            }
            target.run(input)
        }
    }

    /// Small, seeded, the same on every machine.
    private struct SplitMix {
        var state: UInt64
        mutating func next() -> UInt64 {
            state &+= 0x9e37_79b9_7f4a_7c15
            var z = state
            z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
            z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
            return z ^ (z >> 31)
        }
    }
}
