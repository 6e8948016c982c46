import Glibc
import StrataBase

/// The iovecs that describe one request to the kernel. They stay in place from `describe` to `forget`, which is what asynchronous engines need.
/// Used by one thread; reused from request to request, so that a contiguous one costs no allocation.
@safe
struct KernelVector {
    /// More than this the kernel does not take; the caller sees a short transfer and asks for the rest.
    private static let limit = 1024

    private let single: UnsafeMutablePointer<iovec> = .allocate(capacity: 1)
    /// A list of its own for a gathered request.
    private var list: UnsafeMutableBufferPointer<iovec>?

    /// Writes `vector` down. The result is valid until `forget`, the memory it points to as long as the rule of `IOVector` says.
    @unsafe
    mutating func describe(_ vector: IOVector) -> (start: UnsafeMutablePointer<iovec>, count: UInt32) {
        if vector.isContiguous {
            unsafe vector.forEachRun { unsafe single.initialize(to: iovec(iov_base: $0.baseAddress, iov_len: $0.count)) }
            return unsafe (single, 1)
        }
        var runs: [iovec] = unsafe []
        unsafe vector.forEachRun { unsafe runs.append(iovec(iov_base: $0.baseAddress, iov_len: $0.count)) }
        let list = unsafe UnsafeMutableBufferPointer<iovec>.allocate(capacity: min(runs.count, Self.limit))
        for position in list.indices { unsafe list.initializeElement(at: position, to: runs[position]) }
        unsafe self.list = unsafe list
        // SAFETY: a list vector has at least one run, so the allocation has a base address.
        guard let start = list.baseAddress else { preconditionFailure("a vector has at least one segment") }
        return unsafe (start, UInt32(list.count))
    }

    /// The request is over.
    mutating func forget() {
        if let list = unsafe list { unsafe list.deallocate() }
        unsafe list = nil
    }

    /// Gives everything back, when the engine goes.
    mutating func deallocate() {
        forget()
        unsafe single.deallocate()
    }
}
