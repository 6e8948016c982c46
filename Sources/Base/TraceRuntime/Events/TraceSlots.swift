public import CStrataLinux

/// The table that a trace point looks at before anything else.
///
/// A trace point's slot follows from its name alone, so that the compiler of `trace-events` knows it and the look is one load from an address that
/// the linker knows, and one branch. Two trace points may share a slot: the byte says "one of them is on", and each then asks its own
/// `TraceEvent`. Nobody needs to hand out numbers, and modules can be compiled apart.
///
/// Public, unlike its neighbours: a function of another module is inlined only when it is (`Benchmarks/trace-cost` shows it).
public enum TraceSlots {
    /// Whether the trace point, or one that shares its slot, is on. Any thread; a change made elsewhere is seen soon, in no order with other memory.
    @inlinable @inline(__always)
    public static func isOn(_ slot: strata_trace_slot) -> Bool { strata_trace_slot_is_on(slot) }

    static func set(_ slot: UInt16, _ isOn: Bool) { strata_trace_set_slot(slot, isOn) }
}
