import BlockGraph
import DriverTesting
import StrataBase
import Testing

@Suite("driver conformance: failures below")
struct ErrorConformanceTests {
    @Test("a failure below comes out above with its code, and the node goes on working", arguments: ConformanceCase.overSimulatedDisks)
    func passThrough(current: ConformanceCase) async throws {
        try await ConformanceBench.run(current) { bench, backend in
            let old = [UInt8](repeating: 0x11, count: 40_000), new = [UInt8](repeating: 0x22, count: 40_000)
            try await backend.writeArray(old, at: 10_001)
            let range = GuestRange(GuestOffset(10_001), byteCount: 40_000)
            let requests: [(SimulatedDisk.Operation, Set<SimulatedDisk.Operation>, () async throws -> Void)] = [
                (.read, [.read], { _ = try await backend.readArray(at: 10_001, 40_000) }),
                (.write, [.write, .writeZeroes], { try await backend.writeArray(new, at: 10_001) }),
                (.write, [.write, .writeZeroes], { try await backend.writeZeroes(range) }),
                (.flush, [.flush], { try await backend.flush() }),
            ]
            for code in [BlockError.Code.io, .noSpace] {
                for (operation, failing, request) in requests where current.row.passesErrorsOf.contains(operation) {
                    for disk in bench.disks { disk.fail(.init(failing, code)) }
                    let found = try await failure(request)
                    #expect(found?.code == code, "\(operation) with \(code): \(String(describing: found))")
                    for disk in bench.disks { disk.clearFaults() }
                    guard current.row.keepsData else { continue }
                    let after = try await backend.readArray(at: 10_000, 40_002)
                    #expect(after[0] == 0 && after[40_001] == 0, "\(operation) touched its neighbours")
                    #expect(after[1...40_000].allSatisfy { [0x11, 0x22, 0].contains($0) }, "\(operation) left neither old nor new data")
                    try await backend.writeArray(old, at: 10_001)
                    #expect(try await backend.readArray(at: 10_001, 40_000) == old, "after \(operation) with \(code)")
                    try await backend.flush()
                }
            }
        }
    }

    @Test("a failure in the middle of many requests costs only those that failed", arguments: ConformanceCase.overSimulatedDisks.filter(\.row.keepsData))
    func anyFailure(current: ConformanceCase) async throws {
        for skipped in [0, 1, 3, 7] {
            try await ConformanceBench.run(current) { bench, backend in
                let unit = 10_000
                var expected: [Set<UInt8>] = Array(repeating: [0], count: backend.length / unit)
                for disk in bench.disks { disk.fail(.init([.write, .read, .writeZeroes], .io, skipped: skipped, count: 1)) }
                for index in expected.indices {
                    let value = UInt8(index + 1)
                    let found = try await failure { try await backend.writeArray([UInt8](repeating: value, count: unit), at: index * unit) }
                    if found == nil { expected[index] = [value] } else { expected[index].insert(value) }
                }
                for disk in bench.disks { disk.clearFaults() }
                for (index, allowed) in expected.enumerated() {
                    let bytes = try await backend.readArray(at: index * unit, unit)
                    #expect(bytes.allSatisfy(allowed.contains), "part \(index) after the failure of request \(skipped)")
                }
            }
        }
    }
}
