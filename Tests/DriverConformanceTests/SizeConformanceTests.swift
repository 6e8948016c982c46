import BlockGraph
import DriverTesting
import StrataBase
import Testing

@Suite("driver conformance: sizes")
struct SizeConformanceTests {
    @Test("a node grows with zeroes, shrinks, and shows nothing of what it was when it grows again", arguments: ConformanceCase.all)
    func resize(current: ConformanceCase) async throws {
        try await ConformanceBench.run(current, grant: ConformanceBench.all) { _, backend in
            let row = current.row
            let length = backend.length
            guard row.canResize else {
                let refusal = try await failure { try await backend.resize(to: length * 2) }
                #expect(refusal?.code == .unsupported, "\(String(describing: refusal))")
                #expect(backend.length == length)
                return
            }
            try await backend.writeArray([UInt8](repeating: 0xC3, count: length), at: 0)
            let sectors = max(row.sizeUnit, 512)
            let unit = max(row.resizeUnit, row.sizeUnit, current.alignment)
            for (wanted, kept) in [(length * 2, length), (length / 2, length / 2), (length, length / 2), (length + 1536, length / 2), (4096, 4096), (200_000, 4096)] {
                let wanted = wanted.dividedRoundingUp(by: sectors) * sectors
                let refusal = try await failure { try await backend.resize(to: wanted) }
                if refusal?.code == .unsupported, wanted < backend.length { return }  // some formats only grow
                try #require(refusal == nil)
                #expect(backend.length >= wanted && backend.length < wanted + unit, "\(backend.length) after a resize to \(wanted)")
                let contents = try await backend.readArray(at: 0, backend.length)
                // Where the size was rounded the rest of a unit may have come back.
                let kept = kept.dividedRoundingUp(by: sectors) * sectors
                let isRight = contents.indices.allSatisfy { contents[$0] == ($0 < kept ? 0xC3 : 0) || ($0 >= kept && ($0 < kept + unit || !row.growsWithZeroes)) }
                #expect(isRight, "contents after a resize to \(wanted)")
                // The new end can be used.
                try await backend.writeArray([1], at: wanted - 1)
                #expect(try await backend.readArray(at: wanted - 1, 1) == [1])
                try await backend.writeArray([wanted - 1 < kept ? 0xC3 : 0], at: wanted - 1)
            }
        }
    }

    @Test("a size is not changed by those who were not allowed to", arguments: ConformanceCase.all)
    func permission(current: ConformanceCase) async throws {
        try await ConformanceBench.run(current) { _, backend in
            let length = backend.length
            let refusal = try await failure { try await backend.resize(to: length * 2) }
            #expect(refusal?.code == .permissionConflict || (refusal?.code == .unsupported && !current.row.canResize), "\(String(describing: refusal))")
            #expect(backend.length == length)
        }
    }

    @Test("a resize that fails below fails, and leaves a node that works", arguments: ConformanceCase.overSimulatedDisks.filter(\.row.canResize))
    func failedResize(current: ConformanceCase) async throws {
        try await ConformanceBench.run(current, grant: ConformanceBench.all) { bench, backend in
            let length = backend.length
            try await backend.writeArray([9, 9, 9], at: 5000)
            for disk in bench.disks { disk.fail(.init([.resize, .write, .writeZeroes], .noSpace)) }
            let refusal = try await failure { try await backend.resize(to: length * 2) }
            #expect(refusal?.code == .noSpace)
            for disk in bench.disks { disk.clearFaults() }
            #expect(backend.length == length)
            #expect(try await backend.readArray(at: 5000, 3) == (current.row.keepsData ? [9, 9, 9] : [0, 0, 0]))
        }
    }
}
