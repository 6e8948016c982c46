import BlockGraph
import DriverTesting
import IOCore
import StorageSchema
import StrataBase
import Testing

@Suite("driver conformance: requests")
struct RequestConformanceTests {
    @Test("random requests at any place and length do what they do to an array of bytes", arguments: ConformanceCase.all)
    func flatModel(current: ConformanceCase) async throws {
        for seed in 1...2 as ClosedRange<UInt64> {
            try await ConformanceBench.run(current, suspends: seed == 2) { _, backend in
                var model = FlatModel(byteCount: backend.length, seed: seed, forgets: !current.row.keepsData)
                for _ in 0..<150 {
                    let problem = try await model.step(on: backend)
                    try #require(problem == nil, "seed \(seed)")
                }
                #expect(try await model.difference(to: backend) == nil, "seed \(seed)")
            }
        }
    }

    @Test("a flush after many requests leaves nothing that a crash could take", arguments: ConformanceCase.overSimulatedDisks)
    func flush(current: ConformanceCase) async throws {
        try await ConformanceBench.run(current) { bench, backend in
            var model = FlatModel(byteCount: backend.length, seed: 11, forgets: !current.row.keepsData)
            for _ in 0..<60 {
                let problem = try await model.step(on: backend)
                try #require(problem == nil)
            }
            try await backend.flush()
            #expect(bench.disks.allSatisfy { !$0.hasUnflushedData })
        }
    }

    @Test("requests of no bytes succeed everywhere and change nothing", arguments: ConformanceCase.all)
    func zeroLength(current: ConformanceCase) async throws {
        try await ConformanceBench.run(current) { _, backend in
            try await backend.writeArray([7, 8, 9], at: 1000)
            for offset in [0, 1, 1001, 4096, backend.length] {
                let empty = GuestRange(GuestOffset(offset), byteCount: 0)
                let buffer = IOBuffer(byteCount: 0)
                try await backend.read(buffer.vector, at: empty.start)
                try await backend.write(buffer.vector, at: empty.start)
                try await backend.write(buffer.vector, at: empty.start, flags: .forceUnitAccess)
                try await backend.writeZeroes(empty)
                try await backend.writeZeroes(empty, flags: [.mayUnmap, .forceUnitAccess])
                try await backend.discard(empty)
                withExtendedLifetime(buffer) {}
            }
            #expect(try await backend.readArray(at: 1000, 3) == (current.row.keepsData ? [7, 8, 9] : [0, 0, 0]))
        }
    }

    @Test("the last byte can be used, and nothing beyond it", arguments: ConformanceCase.all)
    func endOfFile(current: ConformanceCase) async throws {
        try await ConformanceBench.run(current) { _, backend in
            let length = backend.length
            try await backend.writeArray([0x5a], at: length - 1)
            let expected: UInt8 = current.row.keepsData ? 0x5a : 0
            #expect(try await backend.readArray(at: length - 1, 1) == [expected])
            #expect(try await backend.readArray(at: length - 3, 3) == [0, 0, expected])
            for (offset, count) in [(length, 1), (length - 1, 2), (length + 4096, 512), (Int.max - 10, 20), (-1, 1), (-512, 512)] {
                let range = GuestRange(GuestOffset(offset), byteCount: count)
                let read = try await failure { _ = try await backend.readArray(at: offset, count) }
                #expect(read?.code == .invalidArgument, "read of \(count) at \(offset)")
                let write = try await failure { try await backend.writeArray([UInt8](repeating: 1, count: count), at: offset) }
                #expect(write?.code == .invalidArgument, "write of \(count) at \(offset)")
                #expect(try await failure { try await backend.writeZeroes(range) }?.code == .invalidArgument, "zeroes at \(offset)")
                #expect(try await failure { try await backend.discard(range) }?.code == .invalidArgument, "discard at \(offset)")
            }
            #expect(backend.length == length)
            #expect(try await backend.readArray(at: length - 1, 1) == [expected])
        }
    }

    @Test("zeroes are zeroes whatever the flags, and their neighbours stay", arguments: ConformanceCase.all)
    func writeZeroes(current: ConformanceCase) async throws {
        try await ConformanceBench.run(current) { bench, backend in
            guard current.row.keepsData else { return }
            let flags: [RequestFlags] = [[], .mayUnmap, .noFallback, .forceUnitAccess, [.mayUnmap, .noFallback], [.mayUnmap, .forceUnitAccess]]
            let ranges = [0..<4096, 1..<4095, 4096..<12288, 5000..<5001, 8000..<80_000, 65536..<131_072, 512..<1024, (backend.length - 700)..<backend.length]
            for flags in flags {
                for range in ranges {
                    let around = max(0, range.lowerBound - 3000)..<min(backend.length, range.upperBound + 3000)
                    let before = [UInt8](repeating: 0xA5, count: around.count)
                    try await backend.writeArray(before, at: around.lowerBound)
                    // What came before is not the business of FUA.
                    try await backend.flush()
                    let refusal = try await failure {
                        try await backend.writeZeroes(GuestRange(GuestOffset(range.lowerBound), byteCount: range.count), flags: flags)
                    }
                    let after = try await backend.readArray(at: around.lowerBound, around.count)
                    if let refusal {
                        #expect(refusal.code == .unsupported && flags.contains(.noFallback), "flags \(flags.rawValue) at \(range): \(refusal)")
                        continue
                    }
                    var expected = before
                    for index in range { expected[index - around.lowerBound] = 0 }
                    #expect(firstDifference(after, expected) == nil, "flags \(flags.rawValue) at \(range)")
                    if flags.contains(.forceUnitAccess) { #expect(bench.disks.allSatisfy { !$0.hasUnflushedData }, "\(range) is not on stable storage") }
                }
            }
        }
    }

    @Test("a write with FUA, and a flush, leave nothing that a crash could take", arguments: ConformanceCase.overSimulatedDisks)
    func durability(current: ConformanceCase) async throws {
        try await ConformanceBench.run(current) { bench, backend in
            for (offset, count) in [(0, 512), (4096, 4096), (70_001, 333)] {
                try await backend.writeArray([UInt8](repeating: 3, count: count), at: offset, flags: .forceUnitAccess)
                #expect(bench.disks.allSatisfy { !$0.hasUnflushedData }, "after FUA at \(offset)")
                try await backend.writeArray([UInt8](repeating: 4, count: count), at: offset + 100_000)
                try await backend.flush()
                #expect(bench.disks.allSatisfy { !$0.hasUnflushedData }, "after a flush")
            }
        }
    }

    @Test("a discard leaves data or zeroes in its range and all else alone", arguments: ConformanceCase.all)
    func discard(current: ConformanceCase) async throws {
        try await ConformanceBench.run(current) { _, backend in
            guard current.row.keepsData else { return }
            for range in [0..<backend.length, 0..<4096, 100..<9000, 65536..<131_072, (backend.length - 5000)..<backend.length] {
                let before = [UInt8](repeating: 0x77, count: backend.length)
                try await backend.writeArray(before, at: 0)
                try await backend.discard(GuestRange(GuestOffset(range.lowerBound), byteCount: range.count))
                let after = try await backend.readArray(at: 0, backend.length)
                let isRight = after.indices.allSatisfy { after[$0] == 0x77 || (range.contains($0) && after[$0] == 0) }
                #expect(isRight, "discard of \(range)")
            }
        }
    }

    @Test("without discard=unmap a discard does nothing", arguments: ConformanceCase.overSimulatedDisks)
    func ignoredDiscard(current: ConformanceCase) async throws {
        let row = current.row
        let ignoring = DriverUnderTest(
            driver: row.driver, variant: row.variant, keepsData: row.keepsData, sizeUnit: row.sizeUnit
        ) { bench, byteCount in
            var options = try await row.build(bench, byteCount)
            options.discard = .ignore
            return options
        }
        try await ConformanceBench.run(ConformanceCase(row: ignoring, alignment: current.alignment)) { bench, backend in
            try await backend.writeArray([UInt8](repeating: 0x77, count: 100_000), at: 0)
            for disk in bench.disks { disk.forgetRequests() }
            try await backend.discard(GuestRange(GuestOffset(0), byteCount: 100_000))
            #expect(bench.disks.allSatisfy { $0.requests.isEmpty })
            #expect(try await backend.readArray(at: 0, 100_000).allSatisfy { $0 == (row.keepsData ? 0x77 : 0) })
        }
    }
}
