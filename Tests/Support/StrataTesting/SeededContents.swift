import Foundation

/// SplitMix64: small, fast, the same on every machine.
package struct SeededGenerator: RandomNumberGenerator, Sendable {
    private var state: UInt64

    package init(seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}

/// The seed of this run: STRATA_SEED, or a fixed one, so that a test fails twice the same way.
package let runSeed: UInt64 = ProcessInfo.processInfo.environment["STRATA_SEED"].flatMap { UInt64($0) } ?? 20_260_101

/// True if the long version of the tests was asked for (`Scripts/test --extended`).
package let extendedRun = ProcessInfo.processInfo.environment["STRATA_EXTENDED"] != nil

/// Random bytes that cannot be compressed.
package func randomBytes(_ count: Int, using generator: inout SeededGenerator) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    bytes.withUnsafeMutableBytes { buffer in
        var at = 0
        while at + 8 <= count {
            buffer.storeBytes(of: generator.next(), toByteOffset: at, as: UInt64.self)
            at += 8
        }
        while at < count {
            buffer[at] = UInt8(truncatingIfNeeded: generator.next())
            at += 1
        }
    }
    return bytes
}

/// A disk as disks are: stretches of random bytes, of one repeated byte (which compress well) and of zeros.
package func mixedContents(_ count: Int, seed: UInt64) -> [UInt8] {
    var generator = SeededGenerator(seed: seed)
    var disk = [UInt8](repeating: 0, count: count)
    var at = 0
    while at < count {
        let length = min(count - at, Int.random(in: 1...max(1, count / 12), using: &generator))
        switch Int.random(in: 0..<3, using: &generator) {
        case 0: disk.replaceSubrange(at..<at + length, with: randomBytes(length, using: &generator))
        case 1: disk.replaceSubrange(at..<at + length, with: repeatElement(UInt8.random(in: 1...255, using: &generator), count: length))
        default: break
        }
        at += length
    }
    return disk
}
