import Glibc
import StrataBase

/// Several views joined into one, for requests that gather pieces from different places (the head of a cluster from one buffer, its middle
/// from the guest). The list lives as long as this object, which must outlive the request like any buffer.
@safe package final class VectorList: @unchecked Sendable {  // unchecked: one holder at a time, like IOBuffer
    private let list: UnsafeMutableBufferPointer<iovec>
    private var used = 0

    /// Joins `parts` in order.
    package init(_ parts: [IOVector]) {
        var count = 0
        for part in parts { unsafe part.forEachRun { _ in count += 1 } }
        unsafe list = .allocate(capacity: max(count, 1))
        for part in parts {
            unsafe part.forEachRun { run in
                unsafe list.initializeElement(at: used, to: iovec(iov_base: run.baseAddress, iov_len: run.count))
                used += 1
            }
        }
        if used == 0 {
            unsafe list.initializeElement(at: 0, to: iovec(iov_base: nil, iov_len: 0))
            used = 1
        }
    }

    deinit { unsafe list.deallocate() }

    /// The parts as one view.
    package var vector: IOVector { unsafe IOVector(segments: UnsafeMutableBufferPointer(rebasing: list[..<used])) }
}
