import BlockGraph
import NBDProtocol

/// The context `base:allocation`: is there storage behind the bytes, and do they read as zeroes. Source: NBD protocol document, "Metadata contexts".
enum BaseAllocation {
    static func state(of status: BlockStatus) -> NBDAllocationState {
        var state: NBDAllocationState = []
        if !status.flags.contains(.data) { state.insert(.hole) }
        if status.flags.contains(.zero) { state.insert(.zero) }
        return state
    }
}
