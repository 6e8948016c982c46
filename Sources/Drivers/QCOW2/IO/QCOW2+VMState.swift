import BlockGraph
package import IOCore
package import StrataBase
import Synchronization

// Machine state lies in the same mapping as the disk, behind the last piece of the disk that one L1 entry covers. Source: docs/interop/qcow2,
// "Snapshots", the size of the VM state.

extension QCOW2Driver: VMStateStoring {
    /// Where the state would begin in a disk without end, in bytes.
    private var vmStateStart: Int { length.roundedUp(to: 1 << geometry.l1Shift) }

    private func offset(ofVMState position: Int, _ byteCount: Int) throws(BlockError) -> GuestOffset {
        let (start, overflow) = vmStateStart.addingReportingOverflow(position)
        guard !overflow, !start.addingReportingOverflow(byteCount).overflow else { throw BlockError(.tooLarge, "No state is kept at \(position)") }
        return GuestOffset(start)
    }

    package func readVMState(_ target: IOVector, at position: Int) async throws(BlockError) {
        let start = try offset(ofVMState: position, target.byteCount)
        // Bounded by the largest L1 table, far from an overflow.
        let end = state.withLock { $0.l1.count } << geometry.l1Shift
        let mapped = max(0, min(target.byteCount, end - start.rawValue))
        if mapped < target.byteCount { target.slice(at: mapped, byteCount: target.byteCount - mapped).zero() }
        if mapped > 0 { try await read(target.slice(at: 0, byteCount: mapped), at: start, flags: []) }
    }

    package func writeVMState(_ source: IOVector, at position: Int) async throws(BlockError) {
        let start = try offset(ofVMState: position, source.byteCount)
        guard start.rawValue + source.byteCount <= geometry.maximumVirtualSize else { throw BlockError(.tooLarge, "No state is kept at \(position)") }
        if source.byteCount == 0 { return }
        try await prepareForWriting()
        await resizing.lock()
        defer { resizing.unlock() }
        try await extendL1(toCover: start.rawValue + source.byteCount)
        try await writePlain(source, at: start)
        try await limitUnmapped()
    }

    /// Before a disk grows: machine state that lies where the new part is going to be must not be seen there.
    func forgetVMState() async throws(BlockError) {
        let end = state.withLock { $0.l1.count } << geometry.l1Shift
        if vmStateStart < end { try await unmap(from: GuestOffset(vmStateStart), to: GuestOffset(end), .forget) }
    }
}
