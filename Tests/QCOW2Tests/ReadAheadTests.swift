import BlockGraph
import Foundation
import IOCore
import QCOW2Testing
import StrataBase
import StrataTesting
import Synchronization
import Testing

/// An image whose tables have many slices: only there are the next ones read with the one that is asked for.
@Suite("qcow2 mappings that are gone through from front to back")
struct ReadAheadTests {
    private static let clusterSize = 64 << 10
    private static let size = 6 << 30
    /// Bytes that one slice of 4 KiB maps.
    private static let slice = 32 << 20

    /// Where the image has data: some clusters here and there, and runs over the ends of slices and tables.
    private static func places(seed: UInt64) -> [Range<Int>] {
        var random = SeededGenerator(seed: seed)
        var places: [Range<Int>] = []
        var position = 0
        while position < size - 4 * slice {
            position += Int.random(in: 1...3, using: &random) * slice + Int.random(in: 0..<(slice / clusterSize), using: &random) * clusterSize
            let start = Bool.random(using: &random) ? position.roundedDown(to: slice) - 2 * clusterSize : position
            places.append(start..<start + Int.random(in: 1...4, using: &random) * clusterSize)
            position += slice
        }
        return places.filter { $0.upperBound <= size }
    }

    private static func pattern(_ range: Range<Int>) -> UInt8 { UInt8(1 + range.lowerBound / clusterSize % 255) }

    /// The image as QEMU makes it.
    private static func makeImage(_ scratch: Scratch, _ places: [Range<Int>]) throws -> String {
        let path = scratch.file("large.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", path, String(size)])
        try run("qemu-io", ["-f", "qcow2"] + places.flatMap { ["-c", "write -P \(pattern($0)) \($0.lowerBound) \($0.count)"] } + [path])
        return path
    }

    /// Asks for the status from the front on; neighbours that hold data become one.
    private static func walk(_ backend: BlockBackend) async throws -> [Range<Int>] {
        var found: [Range<Int>] = []
        var position = 0
        while position < size {
            let (status, _, _) = try await backend.blockStatus(of: GuestRange(GuestOffset(position), byteCount: size - position))
            if status.flags.contains(.data) {
                if let last = found.last, last.upperBound == position { found[found.count - 1] = last.lowerBound..<position + status.byteCount } else { found.append(position..<position + status.byteCount) }
            }
            position += status.byteCount
        }
        return found
    }

    private static func checkData(_ backend: BlockBackend, _ places: [Range<Int>]) async throws {
        for place in places {
            let bytes = try await backend.readBytes(at: place.lowerBound - clusterSize, place.count + 2 * clusterSize)
            let inside = bytes[clusterSize..<clusterSize + place.count]
            #expect(inside.allSatisfy { $0 == pattern(place) } && bytes.prefix(clusterSize).allSatisfy { $0 == 0 } && bytes.suffix(clusterSize).allSatisfy { $0 == 0 }, "\(place)")
        }
    }

    @Test("the status of every byte is found, and the data, whether reads are answered at once or suspend", arguments: [true, false], [1, 2] as [UInt64])
    func everythingIsFound(suspends: Bool, seed: UInt64) async throws {
        let scratch = try Scratch()
        let places = Self.places(seed: seed)
        let path = try Self.makeImage(scratch, places)
        try await onContext { context in
            let recorder = Recorder(disk: [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))))
            defer { recorder.forget() }
            recorder.state.withLock { $0.isSlow = suspends }
            try await withImage(recorder.imageOptions(), context) { backend in
                let found = try await Self.walk(backend)
                #expect(found == places)
                try await Self.checkData(backend, places)
                // Several at once, while the front of the disk is written to.
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for _ in 0..<6 {
                        group.addTask(executorPreference: context) {
                            let found = try await Self.walk(backend)
                            #expect(found == places)
                        }
                    }
                    group.addTask(executorPreference: context) {
                        for place in places { try await backend.writeBytes([UInt8](repeating: Self.pattern(place), count: place.count), at: place.lowerBound) }
                    }
                    try await group.waitForAll()
                }
            }
            // Again from nothing, by several at once: they wait for each other's reads.
            try await withImage(recorder.imageOptions(), context) { backend in
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for _ in 0..<6 {
                        group.addTask(executorPreference: context) {
                            let found = try await Self.walk(backend)
                            #expect(found == places)
                        }
                    }
                    try await group.waitForAll()
                }
                try await Self.checkData(backend, places)
            }
        }
    }

    @Test("a read of the mapping that fails is an error of whoever needs it, or of nobody, and the next one succeeds")
    func failures() async throws {
        let scratch = try Scratch()
        let places = Self.places(seed: 3)
        let path = try Self.makeImage(scratch, places)
        try await onContext { context in
            let recorder = Recorder(disk: [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))))
            defer { recorder.forget() }
            recorder.state.withLock { $0.countsReads = true }
            let reached = Mutex(0)
            // The first calls open the image, which may fail as a whole.
            for call in 10..<60 {
                recorder.state.withLock { ($0.calls, $0.failAt) = (0, call) }
                try await withImage(recorder.imageOptions(readOnly: true), context) { backend in
                    let first = try? await Self.walk(backend)
                    #expect(first == nil || first == places, "call \(call)")
                    let second = try await Self.walk(backend)
                    #expect(second == places, "after call \(call)")
                    if recorder.state.withLock({ $0.calls >= call }) { reached.withLock { $0 += 1 } }
                }
            }
            #expect(reached.withLock { $0 } > 0, "some call was one that reads the mapping")
        }
    }
}
