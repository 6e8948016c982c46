package import BlockGraph
package import StrataBase
import Synchronization

extension QCOW2Driver: StatusReporting {
    package func blockStatus(of range: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus {
        let extent = try await step { state throws(Obstacle) in try state.wideExtent(at: range.start, limit: range.byteCount) }
        return status(extent, range)
    }

    package func tryBlockStatus(of range: GuestRange, precise: Bool) -> BlockStatus? {
        while true {
            let missing: Int
            do {
                let extent = try state.withLock { state throws(Obstacle) in try state.wideExtent(at: range.start, limit: range.byteCount) }
                return status(extent, range)
            } catch {
                guard case .l2Slice(let slice) = error else { return nil }
                missing = slice
            }
            if !tryLoadSlice(missing, isPassing: true) { return nil }
        }
    }

    private var dataFlags: BlockStatus.Flags {
        sparseness.isSparse(file, clusterSize: geometry.clusterSize) ? [.data, .allocated, .offsetValid, .recurse] : [.data, .allocated, .offsetValid]
    }

    private func status(_ extent: GuestExtent, _ range: GuestRange) -> BlockStatus {
        if opened.header.encryptionMethod != 0 { return encryptedStatus(extent) }
        switch extent.kind {
        case .normal:
            return BlockStatus(byteCount: extent.byteCount, flags: dataFlags, offset: extent.host, file: dataFile)
        case .compressed: return BlockStatus(byteCount: extent.byteCount, flags: [.data, .allocated, .compressed])
        case .zero: return BlockStatus(byteCount: extent.byteCount, flags: [.zero, .allocated])
        case .zeroAllocated:
            return BlockStatus(byteCount: extent.byteCount, flags: [.zero, .allocated, .offsetValid], offset: extent.host, file: dataFile)
        case .unallocated: return BlockStatus(byteCount: extent.byteCount, flags: hasBacking ? [] : .zero)
        case .reserved:
            return BlockStatus(
                byteCount: extent.byteCount, flags: hasBacking ? .offsetValid : [.zero, .offsetValid], offset: extent.host, file: dataFile)
        }
    }

    /// No place in the file is named: what lies there is not what the guest sees.
    private func encryptedStatus(_ extent: GuestExtent) -> BlockStatus {
        let flags: BlockStatus.Flags =
            switch extent.kind {
            case .normal: [.data, .allocated]
            case .compressed: [.data, .allocated, .compressed]
            case .zero, .zeroAllocated: [.zero, .allocated]
            case .unallocated, .reserved: hasBacking ? [] : .zero
            }
        return BlockStatus(byteCount: extent.byteCount, flags: flags)
    }
}
