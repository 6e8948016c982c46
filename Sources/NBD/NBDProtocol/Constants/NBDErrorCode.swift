package import StrataBase
import Glibc

/// The error numbers that may travel in a reply. They are Linux's, and no others are allowed.
@frozen
package enum NBDErrorCode: UInt32, Hashable, Sendable {
    case notPermitted = 1
    case io = 5
    case noMemory = 12
    case invalid = 22
    case noSpace = 28
    /// An answer that cannot be given in one piece although the client asked for that.
    case overflow = 75
    case notSupported = 95
    case shutdown = 108

    /// What goes on the wire for an error of the disk below. What the protocol has no number for becomes the nearest that it has.
    package init(_ error: BlockError) {
        switch error.errno {
        case EPERM, EROFS, EACCES: self = .notPermitted
        case ENOMEM: self = .noMemory
        case EINVAL: self = .invalid
        case ENOSPC, EDQUOT, EFBIG: self = .noSpace
        case EOVERFLOW: self = .overflow
        case ENOTSUP: self = .notSupported
        case ESHUTDOWN, ECANCELED: self = .shutdown
        default: self = .io
        }
    }
}
