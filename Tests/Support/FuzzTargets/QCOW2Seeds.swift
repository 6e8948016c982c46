import BlockGraph
import IOCore
import QCOW2
import StorageSchema
import StrataBase
import Synchronization

// Small images of all kinds, each with a few ways to use it.

extension QCOW2Fuzz {
    package static func seeds() throws -> [[UInt8]] {
        var seeds: [[UInt8]] = []
        for recipe in Recipe.all {
            let image = MemoryFile.Contents([]), data = MemoryFile.Contents([])
            let outcome = try MemoryFile.with([image, data]) {
                try IOContext.runMain { () async -> BlockError? in
                    do throws(BlockError) { try await make(recipe) } catch { return error }
                    return nil
                }
            }
            if let error = outcome { throw error }
            let packed = pack(image.bytes)
            for variant in 0..<3 {
                let script = (0..<scriptSize).map { UInt8(truncatingIfNeeded: ($0 + 3) * (variant * 29 + 7)) }
                let first: UInt8 = (recipe.hasDataFile ? 1 : 0) + (variant == 1 ? 2 : 0)
                seeds.append([first] + script.dropFirst() + packed)
            }
        }
        return seeds
    }

    private struct Recipe: Sendable {
        var version = BlockdevQcow2Version.v3
        var clusterSize = 512
        var refcountBits = 16
        var hasSubclusters = false
        var compression = Qcow2CompressionType.zlib
        var isLazy = false
        var hasDataFile = false
        var backing: String?
        var hasSnapshot = false
        var hasBitmap = false

        static let all: [Recipe] = [
            Recipe(), Recipe(hasSnapshot: true), Recipe(hasBitmap: true), Recipe(hasSnapshot: true, hasBitmap: true), Recipe(version: .v2, hasSnapshot: true),
            Recipe(refcountBits: 1), Recipe(refcountBits: 64, hasSnapshot: true), Recipe(compression: .zstd, isLazy: true), Recipe(clusterSize: 1024, backing: "base"),
            Recipe(clusterSize: 16384, hasSubclusters: true), Recipe(hasDataFile: true),
        ]
    }

    private static func make(_ recipe: Recipe) async throws(BlockError) {
        guard let context = IOContext.current else { return }
        let graph = BlockGraph(context: context, drivers: DriverRegistry([MemoryFile.self, QCOW2Driver.self]))
        var nodes: [BlockBackend] = []
        for number in 1...2 {
            var options = MemoryFile.options(number)
            options.nodeName = "file\(number)"
            try await graph.add(options)
            nodes.append(try await graph.makeBackend(named: "create\(number)", on: "file\(number)", PermissionGrant(used: .all, shared: .all)))
        }
        try await QCOW2Driver.create(
            BlockdevCreateOptionsQcow2(
                file: .reference("file1"), dataFile: recipe.hasDataFile ? .reference("file2") : nil, extendedL2: recipe.hasSubclusters, size: 40 * recipe.clusterSize,
                version: recipe.version, backingFile: recipe.backing, backingFmt: recipe.backing == nil ? nil : .raw, clusterSize: recipe.clusterSize,
                lazyRefcounts: recipe.isLazy, refcountBits: recipe.refcountBits, compressionType: recipe.compression),
            in: nodes[0], dataFile: recipe.hasDataFile ? nodes[1] : nil)
        for node in nodes { await graph.release(node) }
        let own = BlockdevOptionsQcow2(file: .reference("file1"), backing: .null, dataFile: recipe.hasDataFile ? .reference("file2") : nil)
        try await graph.add(BlockdevOptions(.qcow2(own), nodeName: "disk", discard: .unmap))
        let disk = try await graph.makeBackend(named: "seed", on: "disk", PermissionGrant(used: [.consistentRead, .write, .resize], shared: .all))
        let buffer = IOBuffer(byteCount: 3 * recipe.clusterSize)
        defer { withExtendedLifetime(buffer) {} }
        buffer.vector.fill(with: 0x5a)
        // Data is not what is fuzzed: a few sectors are enough.
        for cluster in 1...3 { try await disk.write(buffer.vector(at: 0, byteCount: 512), at: GuestOffset(cluster * recipe.clusterSize)) }
        if !recipe.hasDataFile {
            try await disk.write(buffer.vector(at: 0, byteCount: recipe.clusterSize), at: GuestOffset(8 * recipe.clusterSize), flags: .compressed)
            try await disk.write(buffer.vector(at: 0, byteCount: recipe.clusterSize), at: GuestOffset(9 * recipe.clusterSize), flags: .compressed)
        }
        try await disk.writeZeroes(GuestRange(GuestOffset(12 * recipe.clusterSize), byteCount: 2 * recipe.clusterSize), flags: .mayUnmap)
        if recipe.hasSnapshot {
            _ = try await disk.node.snapshotting?.createSnapshot(named: "one", moment: SnapshotMoment(WallClock(seconds: 1, nanoseconds: 0)))
        }
        if recipe.hasBitmap { _ = try await graph.addBitmap(named: "b", to: "disk", granularity: 512, isPersistent: true) }
        try await disk.write(buffer.vector(at: 0, byteCount: 700), at: GuestOffset(2 * recipe.clusterSize + 100))
        await graph.release(disk)
        try await graph.closeAll()
    }

    package static var dictionary: [[UInt8]] {
        let magics: [UInt32] = [0x5146_49fb, 0xe279_2aca, 0x6803_f857, 0x2385_2875, 0x4441_5441, 0x0537_be77]
        let entries: [UInt64] = [1 << 63, 1 << 62, 1, 1 << 63 | 512, 1 << 63 | 1024, 1 << 62 | 0x600, .max, 1 << 56, 0x1ff, 512, 1 << 32, 0xffff_ffff]
        return magics.map(\.bigEndianBytes) + entries.map(\.bigEndianBytes)
    }
}
