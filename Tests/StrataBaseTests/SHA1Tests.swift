import Foundation
import StrataBase
import StrataTesting
import Testing

@Suite("SHA-1")
struct SHA1Tests {
    @Test("messages of all lengths around the borders of blocks have the sums that sha1sum finds")
    func lengths() throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "strata-sha1-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let lengths = [0, 1, 3, 54, 55, 56, 57, 62, 63, 64, 65, 118, 119, 120, 127, 128, 129, 1000, 100_000]
        let messages = lengths.map { length in (0..<length).map { UInt8(truncatingIfNeeded: $0 &* 7919 &+ length) } }
        for (length, message) in zip(lengths, messages) { try Data(message).write(to: folder.appending(path: "\(length)")) }
        let output = try mustRun("sha1sum", lengths.map(String.init), in: folder).text
        let expected = output.split(separator: "\n").map { String($0.prefix(40)) }
        #expect(expected == messages.map { SHA1.hash($0).map { String(Int($0) + 256, radix: 16).dropFirst() }.joined() })
    }
}
