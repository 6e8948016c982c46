import BasicDrivers
import BlockGraph
import Foundation
import IOCore
import StorageSchema
import StrataBase
import StrataTesting
import Testing

@Suite("file: copies that the kernel makes")
struct FileCopyTests {
    private static let byteCount = 8 << 20

    /// Copies one file to another through two `file` nodes and returns what came of it.
    private static func copy(_ source: String, _ target: String, direct: Bool = false) async throws -> Support {
        let context = try IOContext.startThread(name: "copy")
        defer {
            context.stop()
            context.join()
        }
        let result: Result<Support, any Error> = await withCheckedContinuation { continuation in
            context.spawn {
                do {
                    let graph = BlockGraph(context: context, drivers: DriverRegistry([FileDriver.self]))
                    let cache = BlockdevCacheOptions(direct: direct)
                    try await graph.add(BlockdevOptions(.file(BlockdevOptionsFile(filename: source)), nodeName: "from", cache: cache, readOnly: true))
                    try await graph.add(BlockdevOptions(.file(BlockdevOptionsFile(filename: target)), nodeName: "to", cache: cache))
                    let from = try await graph.makeBackend(named: "from", on: "from", PermissionGrant(used: .consistentRead, shared: .all))
                    let to = try await graph.makeBackend(named: "to", on: "to", PermissionGrant(used: [.consistentRead, .write], shared: .all))
                    let outcome = try await from.copyRange(GuestRange(GuestOffset(0), byteCount: byteCount), to: to, at: GuestOffset(0))
                    try await to.flush()
                    for backend in [from, to] { await graph.release(backend) }
                    try await graph.closeAll()
                    continuation.resume(returning: .success(outcome))
                } catch { continuation.resume(returning: .failure(error)) }
            }
        }
        return try result.get()
    }

    private static func prepare(_ folder: String) throws -> (source: String, target: String, contents: [UInt8]) {
        let contents = mixedContents(byteCount, seed: runSeed)
        try Data(contents).write(to: URL(filePath: folder + "/source"))
        try mustRun("truncate", ["-s", "\(byteCount)", folder + "/target"])
        return (folder + "/source", folder + "/target", contents)
    }

    @Test("where the file system can, both files share their blocks", arguments: [false, true])
    func shared(direct: Bool) async throws {
        let mounted = try MountedFileSystem("xfs", byteCount: 512 << 20, ["-m", "reflink=1"])
        defer { mounted.unmount() }
        let (source, target, contents) = try Self.prepare(mounted.path)
        #expect(try await Self.copy(source, target, direct: direct) == .done)
        #expect(firstDifference([UInt8](try Data(contentsOf: URL(filePath: target))), contents) == nil)
        let map = try mustRun("filefrag", ["-v", target]).text.split(separator: "\n").filter { $0.contains(":") && $0.contains("..") }
        #expect(!map.isEmpty && map.allSatisfy { $0.contains("shared") }, "\(map)")
    }

    @Test("where it cannot, they are copied", arguments: ["/tmp", "/dev/shm"])
    func copied(folder: String) async throws {
        let folder = folder + "/strata-copy-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let (source, target, contents) = try Self.prepare(folder)
        #expect(try await Self.copy(source, target) == .done)
        #expect(firstDifference([UInt8](try Data(contentsOf: URL(filePath: target))), contents) == nil)
    }

    @Test("from one file system to another the kernel does not copy, and nothing is done")
    func betweenFileSystems() async throws {
        let (one, other) = ("/tmp/strata-copy-\(UUID().uuidString)", "/dev/shm/strata-copy-\(UUID().uuidString)")
        for folder in [one, other] { try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false) }
        defer { for folder in [one, other] { try? FileManager.default.removeItem(atPath: folder) } }
        let source = try Self.prepare(one).source
        let target = try Self.prepare(other).target
        #expect(try await Self.copy(source, target) == .unsupported)
        #expect([UInt8](try Data(contentsOf: URL(filePath: target))) == [UInt8](repeating: 0, count: Self.byteCount))
    }

    @Test("a full file system is an error, which is no reason to try another way")
    func noSpace() async throws {
        let mounted = try MountedFileSystem("ext4", byteCount: 8 << 20)
        defer { mounted.unmount() }
        let (source, target) = (mounted.path + "/source", mounted.path + "/target")
        try Data([UInt8](repeating: 1, count: Self.byteCount / 2)).write(to: URL(filePath: source))
        for name in [source, target] { try mustRun("truncate", ["-s", "\(Self.byteCount)", name]) }
        let error = try await #require(throws: BlockError.self) { try await Self.copy(source, target) }
        #expect(error.code == .noSpace, "\(error)")
    }
}
