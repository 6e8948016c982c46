import Foundation
import StrataBase
import Testing

@Suite("Small files")
struct SmallFileTests {
    private let path = NSTemporaryDirectory() + "small-\(UUID().uuidString)"

    @Test("what is written is read back, whatever was there before")
    func roundTrip() throws {
        defer { try? FileManager.default.removeItem(atPath: path) }
        for contents in [Array("longer than the next".utf8), [], (0..<200_000).map { UInt8(truncatingIfNeeded: $0) }, [0xff]] {
            try SmallFile.write(contents, to: path)
            #expect(try SmallFile.read(path) == contents)
        }
    }

    @Test("a file beyond the limit is refused, and so is one that is not there, by name")
    func refusals() throws {
        defer { try? FileManager.default.removeItem(atPath: path) }
        try SmallFile.write([1, 2, 3], to: path)
        #expect(try SmallFile.read(path, limit: 3) == [1, 2, 3])
        #expect(throws: BlockError.self) { try SmallFile.read(path, limit: 2) }
        let error = #expect(throws: BlockError.self) { try SmallFile.read(path + ".gone") }
        #expect(error?.code == .notFound)
        #expect(error?.message.contains(path + ".gone") == true)
        #expect(throws: BlockError.self) { try SmallFile.write([1], to: "/nowhere/at/all") }
        #expect(throws: BlockError.self) { try SmallFile.read(NSTemporaryDirectory()) }
    }

    @Test("the wall clock agrees with the system's")
    func clock() {
        let (before, now, after) = (Date().timeIntervalSince1970, WallClock.now, Date().timeIntervalSince1970)
        let seconds = Double(now.seconds) + Double(now.nanoseconds) / 1e9
        #expect(before - 0.001 <= seconds && seconds <= after + 0.001)
    }
}
