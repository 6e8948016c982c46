import Foundation
import IOCore
import StrataBase
import Testing

/// A kernel tells of data that it could not write once, and then calls the next flush a success although the data is gone.
@Suite("host files after a flush that failed")
struct FlushFailureTests {
    /// Runs `body` while flushing the file fails: behind its descriptor is a file that cannot be flushed.
    private static func failing(_ file: HostFile, _ path: String, _ body: () async -> Void) async throws {
        let pathOnly: Int32 = 0x20_0000  // O_PATH
        let kept = dup(file.descriptor), other = open(path, pathOnly)
        guard kept >= 0, other >= 0, dup2(other, file.descriptor) >= 0 else { throw POSIXError(.EBADF) }
        defer { for number in [kept, other] { close(number) } }
        await body()
        guard dup2(kept, file.descriptor) >= 0 else { throw POSIXError(.EBADF) }
    }

    @Test("through the page cache no later flush is a success, nor one of the file opened in another way; around it the next one counts",
        arguments: [false, true], [AsyncIOMode.threads, .ioUring])
    func laterFlushes(direct: Bool, mode: AsyncIOMode) async throws {
        let path = HostFileTests.path()
        defer { unlink(path) }
        let outcome = try await IOContextTests.onThread { () async -> Result<[String], any Error> in
            do {
                let file = try HostFile(opening: path, .init(writable: true, create: true, direct: direct), mode: mode)
                var outcomes: [String] = []
                func flush(_ file: HostFile) async {
                    do throws(BlockError) {
                        try await file.flush()
                        outcomes.append("done")
                    } catch { outcomes.append(error.message.contains("an earlier flush failed") ? "refused" : "failed") }
                }
                await flush(file)
                try await Self.failing(file, path) { await flush(file) }
                await flush(file)
                await flush(try file.reopened(.init(writable: true, direct: direct)))
                // Whoever begins anew relies on what he reads then.
                await flush(try HostFile(opening: path, .init(writable: true)))
                return .success(outcomes)
            } catch { return .failure(error) }
        }
        #expect(try outcome.get() == ["done", "failed"] + (direct ? ["done", "done"] : ["refused", "refused"]) + ["done"])
    }
}
