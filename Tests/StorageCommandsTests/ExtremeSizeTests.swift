import Foundation
import QAPIRuntime
import Testing

/// Sizes that no disk can have, from wherever they come.
@Suite("sizes beyond all disks")
struct ExtremeSizeTests {
    private typealias Command = Conversation.Command

    /// The longest disk: rounded up to any unit, its length is still a number.
    private static let longest = Int.max / (1 << 30) * (1 << 30)

    @Test("the longest disk works, and whatever is longer is refused as QEMU refuses it")
    func disks() async throws {
        let scratch = try Scratch()
        let huge = scratch.file("huge")
        _ = FileManager.default.createFile(atPath: huge, contents: nil)
        #expect(truncate(huge, .max) == 0, "a file system in memory takes files of any length")
        func null(_ name: String, _ size: Int) -> Command {
            Command("blockdev-add", ["driver": "null-co", "node-name": .string(name), "size": .integer(size), "read-zeroes": true])
        }
        try await Conversation.compare([
            null("a", Self.longest), null("b", .max), null("c", .max - 511),
            Command("blockdev-add", ["driver": "file", "node-name": "f", "filename": .string(huge)]),
        ])
    }

    @Test("a command that is to make or resize something so long is refused and harms nobody")
    func commands() async throws {
        let scratch = try Scratch()
        let fixture = try ServiceFixture()
        let made = scratch.file("made")
        #expect(await fixture.failure(
            "blockdev-create", ["job-id": "j", "options": ["driver": "file", "filename": .string(made), "size": .integer(.max)]]) == nil)
        while await fixture.event("JOB_STATUS_CHANGE")["status"] != "concluded" {}
        let refusal = "Required too big image size, it must be not greater than \(Self.longest)"
        #expect(await fixture.execute("query-jobs")["return"]?.array?.first?["error"]?.string == refusal)
        #expect(!FileManager.default.fileExists(atPath: made))
        let disk = scratch.disk("disk", byteCount: 1 << 20)
        #expect(await fixture.failure("blockdev-add", ["driver": "file", "node-name": "disk", "filename": .string(disk)]) == nil)
        #expect(await fixture.failure("block_resize", ["node-name": "disk", "size": .integer(.max)]) == refusal)
        try await fixture.stop()
    }
}
