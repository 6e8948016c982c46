public import Synchronization

/// A strong reference that any thread may follow without a lock, and that changes only while nobody does.
///
/// A `var` that holds an object costs each reader a check for exclusive access, a retain and a release: about forty instructions and two locked
/// ones, which on the way of a request is more than the request (Docs/Decisions/0009-what-a-request-costs.md). Following this one is a load.
///
/// **The rule that makes it safe**: `replace` is called only while no `borrow` runs, and whoever calls it keeps the old object alive until that is certain
/// for every thread. For what requests follow, a drained section gives both (Docs/Concurrency.md).
///
/// Public, unlike its neighbours: a function of another module is inlined only when it is.
@frozen @safe
public struct QuiescentReference<Object: AnyObject & Sendable>: ~Copyable, @unchecked Sendable {  // unchecked: what it leads to is Sendable
    /// What `Unmanaged` makes of the object, of which this holds one reference.
    @usableFromInline let address: Atomic<UnsafeMutableRawPointer>

    @inlinable
    public init(_ object: Object) { unsafe address = Atomic(Unmanaged.passRetained(object).toOpaque()) }

    // SAFETY (whole type): the address is that of a living `Object` for as long as this lives, because a reference to it is held.
    deinit { unsafe Unmanaged<Object>.fromOpaque(address.load(ordering: .relaxed)).release() }

    /// The object, for as long as the caller likes.
    @inlinable
    public var object: Object { unsafe Unmanaged<Object>.fromOpaque(address.load(ordering: .relaxed)).takeUnretainedValue() }

    /// Calls `body` with the object, which is neither retained nor released for it. See the rule above.
    @inlinable @inline(__always)
    public func borrow<R>(_ body: (Object) -> R) -> R {
        unsafe Unmanaged<Object>.fromOpaque(address.load(ordering: .relaxed))._withUnsafeGuaranteedRef { body($0) }
    }

    /// Leads to another object from now on. See the rule above.
    @inlinable
    public func replace(by object: Object) {
        let old = unsafe address.exchange(Unmanaged.passRetained(object).toOpaque(), ordering: .acquiringAndReleasing)
        unsafe Unmanaged<Object>.fromOpaque(old).release()
    }
}
