import StrataBase
import Synchronization

/// A request of a backend as traces tell of it: a number that its events share. When nobody listens it is 0 and costs nothing.
struct TracedRequest {
    private let number: UInt64

    private static let last = Atomic<UInt64>(0)

    private init(number: UInt64) { self.number = number }

    @inline(__always)
    static func begin(_ operation: StaticString, _ backend: String, _ range: @autoclosure () -> GuestRange) -> TracedRequest {
        Trace.isBlkRequestBeginOn ? told(operation, backend, range()) : TracedRequest(number: 0)
    }

    @inline(never)
    private static func told(_ operation: StaticString, _ backend: String, _ range: GuestRange) -> TracedRequest {
        let number = last.add(1, ordering: .relaxed).newValue
        Trace.blkRequestBegin(request: number, operation: operation.description, backend: backend, offset: range.start.rawValue, bytes: range.byteCount)
        return TracedRequest(number: number)
    }

    /// The request has passed the gate.
    @inline(__always)
    func enter() { if number != 0 { Trace.blkRequestEnter(request: number) } }

    @inline(__always)
    func end() { if number != 0 { Trace.blkRequestEnd(request: number) } }
}
