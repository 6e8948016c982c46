package import BlockGraph
package import IOCore
package import StorageSchema
package import StrataBase
import Synchronization

/// The driver of a `SimulatedDisk`. Give it to a registry in place of `null-co`.
package final class SimulatedDiskDriver: BlockDriver, Flushing, ZeroWriting, Discarding, Resizing, StatusReporting, CompressedWriting, Reopening {
    package static let formatName = "null-co"
    package static let kind = DriverKind.protocol

    package let disk: SimulatedDisk
    private init(_ disk: SimulatedDisk) { self.disk = disk }

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .nullCo(let own) = options.branch, let disk = SimulatedDisk.find(own.size ?? 0) else {
            throw BlockError(.notFound, "no simulated disk has that number")
        }
        return SimulatedDiskDriver(disk)
    }

    package var length: Int { disk.state.withLock { $0.bytes.count } }

    package var limits: BlockLimits {
        let alignment = disk.properties.alignment
        return BlockLimits(
            requestAlignment: alignment, memoryAlignment: min(alignment, 512), maxTransfer: disk.properties.longestTransfer, zeroAlignment: alignment,
            discardAlignment: alignment)
    }

    package var supportedWriteFlags: RequestFlags {
        var flags: RequestFlags = .writeUnchanged
        if disk.properties.honoursForceUnitAccess { flags.insert(.forceUnitAccess) }
        if disk.properties.compressionUnit != nil { flags.insert(.compressed) }
        return flags
    }

    package var compressionUnit: Int? { disk.properties.compressionUnit }

    package func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool {
        guard disk.isImmediate, target.byteCount > 0, target.byteCount <= disk.properties.longestTransfer else { return false }
        disk.note(.read, GuestRange(offset, byteCount: target.byteCount), [])
        disk.state.withLock { $0.read(target, at: offset.rawValue) }
        return true
    }

    package func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        try await disk.perform(.read, GuestRange(offset, byteCount: target.byteCount), flags) { $0.read(target, at: offset.rawValue) }
    }

    package func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool {
        guard disk.isImmediate, source.byteCount > 0, source.byteCount <= disk.properties.longestTransfer, flags.isEmpty else { return false }
        disk.note(.write, GuestRange(offset, byteCount: source.byteCount), flags)
        disk.state.withLock { $0.write(source, at: offset.rawValue, flags: flags) }
        return true
    }

    package func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        try await disk.perform(.write, GuestRange(offset, byteCount: source.byteCount), flags) { $0.write(source, at: offset.rawValue, flags: flags) }
    }

    package func flush() async throws(BlockError) {
        try await disk.perform(.flush, GuestRange(GuestOffset(0), byteCount: 0)) { $0.hasUnflushedData = false }
    }

    package func writeZeroes(_ range: GuestRange, flags: RequestFlags) async throws(BlockError) -> Support {
        guard disk.properties.writesZeroes, range.isAligned(to: disk.properties.alignment) else { return .unsupported }
        try await disk.perform(.writeZeroes, range, flags) { state in
            state.zero(range.start.rawValue..<range.end.rawValue, unmaps: flags.contains(.mayUnmap))
            if !flags.contains(.forceUnitAccess) { state.hasUnflushedData = true }
        }
        return .done
    }

    package func discard(_ range: GuestRange) async throws(BlockError) -> Support {
        // Nobody minds a discard that a crash undoes.
        try await disk.perform(.discard, range) { state in
            state.zero(range.start.rawValue..<min(range.end.rawValue, state.bytes.count), unmaps: true)
        }
        return .done
    }

    package func resize(to byteCount: Int, exact: Bool, preallocation: PreallocMode) async throws(BlockError) {
        guard preallocation == .off else { throw BlockError(.unsupported, "a simulated disk does not preallocate") }
        let byteCount = byteCount.roundedUp(to: disk.properties.alignment)
        try await disk.perform(.resize, GuestRange(GuestOffset(0), byteCount: byteCount)) { $0.resize(to: byteCount) }
    }

    package func blockStatus(of range: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus {
        try await disk.perform(.blockStatus, range) { state in
            let unit = SimulatedDisk.unit
            let first = range.start.rawValue / unit
            let isData = state.isData[first]
            var end = first + 1
            while end < state.isData.count, state.isData[end] == isData, end * unit < range.end.rawValue { end += 1 }
            return BlockStatus(
                byteCount: min(end * unit, range.end.rawValue) - range.start.rawValue,
                flags: isData ? [.data, .allocated, .offsetValid] : [.zero, .allocated, .offsetValid], offset: range.start.asHost)
        }
    }
}
