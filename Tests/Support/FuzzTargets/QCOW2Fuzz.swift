import BlockGraph
import IOCore
import QCOW2
import StorageSchema
import StrataBase

/// A qcow2 image, as it comes, is opened, described, checked, read, written and repaired.
///
/// The input: 48 bytes that say what is done, sixteen operations of three bytes, then the image without its sectors of zeroes (`unpack`), so that nearly every
/// byte means something, also where clusters are large.
package enum QCOW2Fuzz: FuzzTarget {
    package static let name = "qcow2"
    static let scriptSize = 48

    package static func run(_ input: [UInt8]) {
        guard input.count > scriptSize else { return }
        let image = MemoryFile.Contents(unpack(input[scriptSize...]))
        let script = stride(from: 0, to: scriptSize, by: 3).map { Operation(code: input[$0], place: input[$0 + 1], extent: input[$0 + 2]) }
        MemoryFile.with([image, MemoryFile.Contents([UInt8](repeating: 3, count: 64 << 10))]) {
            do { try IOContext.runMain { await play(script) } } catch { preconditionFailure("no context: \(error)") }
        }
    }

    /// Before each sector stands how many sectors of zeroes there are in front of it. The last sector may be cut short.
    private static func unpack(_ packed: ArraySlice<UInt8>) -> [UInt8] {
        var image: [UInt8] = []
        var rest = packed
        while let skipped = rest.popFirst(), image.count + (Int(skipped) + 1) * 512 <= MemoryFile.longest {
            image += repeatElement(0, count: Int(skipped) * 512)
            image += rest.prefix(512)
            rest = rest.dropFirst(512)
        }
        return image
    }

    static func pack(_ image: [UInt8]) -> [UInt8] {
        var packed: [UInt8] = []
        var skipped: UInt8 = 0
        for start in stride(from: 0, to: image.count, by: 512) {
            let sector = image[start..<min(start + 512, image.count)]
            // The last one is always there: it says where the file ends.
            if skipped < 255, start + 512 < image.count, sector.allSatisfy({ $0 == 0 }) {
                skipped += 1
            } else {
                packed.append(skipped)
                packed += sector
                skipped = 0
            }
        }
        return packed
    }

    private struct Operation {
        var code: UInt8
        var place: UInt8
        var extent: UInt8
    }

    private static func play(_ script: [Operation]) async {
        guard let context = IOContext.current, let first = script.first else { return }
        // The first operation says how the image is opened.
        let hasDataFile = first.code & 1 == 1
        let sound = await withImage(context, readOnly: true, hasDataFile: hasDataFile) { disk in
            await look(disk)
            for operation in script.dropFirst().prefix(5) { await read(operation, disk) }
        }
        guard sound else { return await repair(context) }
        _ = await withImage(context, readOnly: false, hasDataFile: hasDataFile) { disk in
            for operation in script.dropFirst() { await change(operation, disk) }
            await look(disk)
        }
        if first.code & 2 == 2 { await repair(context) }
    }

    /// - Returns: whether the image could be opened.
    private static func withImage(_ context: IOContext, readOnly: Bool, hasDataFile: Bool, _ body: (BlockBackend) async -> Void) async -> Bool {
        let graph = BlockGraph(context: context, drivers: DriverRegistry([MemoryFile.self, QCOW2Driver.self]))
        // Caches of a few slices: entries come and go.
        let own = BlockdevOptionsQcow2(
            file: .definition(MemoryFile.options(1)), backing: .null, l2CacheSize: 4096, dataFile: hasDataFile ? .definition(MemoryFile.options(2)) : nil)
        var isOpen = false
        do {
            try await graph.add(BlockdevOptions(.qcow2(own), nodeName: "disk", discard: .unmap, readOnly: readOnly))
            let used: BlockPermissions = readOnly ? .consistentRead : [.consistentRead, .write, .resize]
            let backend = try await graph.makeBackend(named: "fuzz", on: "disk", PermissionGrant(used: used, shared: .all))
            isOpen = true
            await body(backend)
            await graph.release(backend)
        } catch {}
        do { try await graph.closeAll() } catch {}
        return isOpen
    }

    private static func attempt<Value>(_ body: () async throws(BlockError) -> Value) async -> Value? {
        do { return try await body() } catch { return nil }
    }

    private static func look(_ disk: BlockBackend) async {
        _ = await attempt { () async throws(BlockError) in _ = try await disk.node.imageDescribing?.describeImage() }
        _ = await attempt { () async throws(BlockError) in _ = try await disk.node.checking?.check(repair: []) }
        _ = await attempt { () async throws(BlockError) in _ = try await disk.node.snapshotting?.listSnapshots() }
        var position = 0
        for _ in 0..<16 where position < disk.length {
            let rest = GuestRange(GuestOffset(position), byteCount: min(disk.length - position, 1 << 30))
            guard let status = await attempt({ () async throws(BlockError) in try await disk.blockStatus(of: rest).status }) else { break }
            precondition(status.byteCount > 0 && status.byteCount <= rest.byteCount, "a block status outside of what was asked for")
            position += status.byteCount
        }
    }

    /// Somewhere in the disk; most of the time where a small image has its data.
    private static func range(_ operation: Operation, _ disk: BlockBackend) -> GuestRange? {
        let length = disk.length
        guard length > 0 else { return nil }
        let start = operation.place < 128 ? Int(operation.place) * 256 % length : length - 1 - Int(operation.place - 128) * 512 % length
        let count = min(length - start, 1 + Int(operation.extent) * 37)
        return GuestRange(GuestOffset(start), byteCount: count)
    }

    private static func read(_ operation: Operation, _ disk: BlockBackend) async {
        guard let range = range(operation, disk) else { return }
        let buffer = IOBuffer(byteCount: range.byteCount)
        defer { withExtendedLifetime(buffer) {} }
        _ = await attempt { () async throws(BlockError) in try await disk.read(buffer.vector, at: range.start) }
    }

    private static func change(_ operation: Operation, _ disk: BlockBackend) async {
        guard let range = range(operation, disk) else { return }
        let snapshotting = disk.node.snapshotting
        switch operation.code % 16 {
        case 0...3:
            let buffer = IOBuffer(byteCount: range.byteCount)
            defer { withExtendedLifetime(buffer) {} }
            buffer.vector.fill(with: operation.extent)
            _ = await attempt { () async throws(BlockError) in try await disk.write(buffer.vector, at: range.start) }
        case 4:
            let unit = disk.node.compressionUnit ?? 512
            let buffer = IOBuffer(byteCount: unit)
            defer { withExtendedLifetime(buffer) {} }
            buffer.vector.fill(with: operation.extent)
            let start = range.start.rawValue / unit * unit
            if start + unit <= disk.length {
                _ = await attempt { () async throws(BlockError) in try await disk.write(buffer.vector, at: GuestOffset(start), flags: .compressed) }
            }
        case 5: _ = await attempt { () async throws(BlockError) in try await disk.writeZeroes(range) }
        case 6: _ = await attempt { () async throws(BlockError) in try await disk.writeZeroes(range, flags: .mayUnmap) }
        case 7, 8: _ = await attempt { () async throws(BlockError) in try await disk.discard(range) }
        case 9: _ = await attempt { () async throws(BlockError) in try await disk.flush() }
        case 10: _ = await attempt { () async throws(BlockError) in _ = try await snapshotting?.createSnapshot(named: "new", moment: SnapshotMoment(WallClock(seconds: 1, nanoseconds: 0))) }
        case 11, 12:
            guard let list = await attempt({ () async throws(BlockError) in try await snapshotting?.listSnapshots() }) ?? nil, !list.isEmpty else { return }
            let chosen = SnapshotSelector(id: list[Int(operation.extent) % list.count].id)
            if operation.code % 16 == 11 {
                _ = await attempt { () async throws(BlockError) in try await snapshotting?.applySnapshot(chosen) }
            } else {
                _ = await attempt { () async throws(BlockError) in _ = try await snapshotting?.deleteSnapshot(chosen) }
            }
        case 13: _ = await attempt { () async throws(BlockError) in try await disk.resize(to: range.end.rawValue + (operation.code > 127 ? 40000 : 0)) }
        case 14:
            guard let amending = disk.node.driver as? any Amending else { return }
            var amendment = ImageAmendment()
            switch operation.extent % 4 {
            case 0: amendment.version = .v2
            case 1: amendment.version = .v3
            case 2: amendment.lazyRefcounts = operation.extent > 127
            default: amendment.refcountBits = 1 << Int(operation.extent / 4 % 7)
            }
            let wish = amendment
            _ = await attempt { () async throws(BlockError) in try await amending.amend(wish) { _, _ in } }
        default: await read(operation, disk)
        }
    }

    /// Where a repair leaves nothing wrong, the next one finds nothing.
    private static func repair(_ context: IOContext) async {
        var reports: [CheckReport] = []
        for _ in 0..<2 {
            let graph = BlockGraph(context: context, drivers: DriverRegistry([MemoryFile.self, QCOW2Driver.self]))
            let own = BlockdevOptionsQcow2(file: .definition(MemoryFile.options(1)))
            do {
                try await graph.add(BlockdevOptions(.qcow2(own), nodeName: "disk"), opensChain: false)
                let backend = try await graph.makeBackend(named: "check", on: "disk", PermissionGrant(used: [.consistentRead, .write, .resize], shared: []))
                if let report = await attempt({ () async throws(BlockError) in try await backend.node.checking?.check(repair: [.leaks, .errors]) }) ?? nil {
                    reports.append(report)
                }
                await graph.release(backend)
            } catch {}
            do { try await graph.closeAll() } catch {}
        }
        if reports.count == 2, reports[0].corruptions == 0, reports[0].checkErrors == 0 {
            precondition(reports[1].corruptions == 0 && reports[1].corruptionsFixed == 0, "a repair that called the image sound left \(reports[1]) after \(reports[0])")
        }
    }
}
