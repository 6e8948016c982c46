import BlockGraph
import DriverTesting
import StrataBase
import Testing

@Suite("driver conformance: block status")
struct StatusConformanceTests {
    @Test("every byte belongs to a run, runs of zeroes are zeroes, and data lies where it is said to lie", arguments: ConformanceCase.all)
    func consistency(current: ConformanceCase) async throws {
        try await ConformanceBench.run(current) { bench, backend in
            var model = FlatModel(byteCount: backend.length, seed: 5, forgets: !current.row.keepsData)
            for _ in 0..<40 {
                let problem = try await model.step(on: backend)
                try #require(problem == nil)
            }
            let contents = try await backend.readArray(at: 0, backend.length)
            for precise in [true, false] {
                try await Self.walk(backend, contents, precise: precise, from: 0, step: .max)
                try await Self.walk(backend, contents, precise: precise, from: 777, step: 5001)
                try await Self.walk(backend, contents, precise: precise, from: backend.length - 1, step: 1)
            }
        }
    }

    private static func walk(_ backend: BlockBackend, _ contents: [UInt8], precise: Bool, from start: Int, step: Int) async throws {
        var position = start
        while position < backend.length {
            let asked = GuestRange(GuestOffset(position), byteCount: min(step, backend.length - position))
            let status = try await backend.root.blockStatus(of: asked, precise: precise)
            let place = "\(asked), precise \(precise): \(status.flags.rawValue)"
            try #require(status.byteCount > 0 && status.byteCount <= asked.byteCount, "\(place)")
            let bytes = contents[position..<position + status.byteCount]
            let isZero = bytes.allSatisfy { $0 == 0 }
            if status.flags.contains(.zero) { #expect(isZero, "\(place) claims zeroes") }
            if !status.flags.contains(.allocated), backend.node.chainChild == nil { #expect(isZero, "\(place) is not allocated and has something below nothing") }
            #expect(status.flags.contains(.endOfFile) == (position + status.byteCount == backend.length), "\(place)")
            if status.flags.contains(.data), status.flags.contains(.offsetValid), !status.flags.contains(.compressed), let disk = status.file?.node.driver as? SimulatedDiskDriver {
                let place = status.offset.rawValue
                let below = disk.disk.contents
                let end = min(place + status.byteCount, below.count)
                #expect(below[place..<end].elementsEqual(bytes.prefix(end - place)), "\(asked) does not lie at \(place)")
            }
            // Through the chain the same question has an answer that fits what is read, too.
            let (through, _, _) = try await backend.blockStatus(of: asked, precise: precise)
            try #require(through.byteCount > 0 && through.byteCount <= asked.byteCount)
            if through.flags.contains(.zero) {
                #expect(contents[position..<position + through.byteCount].allSatisfy { $0 == 0 }, "\(place) claims zeroes through the chain")
            }
            position += status.byteCount
        }
    }
}
