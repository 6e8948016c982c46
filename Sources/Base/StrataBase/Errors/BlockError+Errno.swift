import Glibc

// The one place where error codes and the kernel's numbers meet.

extension BlockError {
    /// The Linux error number that stands for this error where only a number travels (NBD, exit codes).
    package var errno: Int32 {
        switch code {
        case .io, .corruptImage, .connection: EIO
        case .noSpace: ENOSPC
        case .noMemory: ENOMEM
        case .readOnly: EROFS
        case .unsupported: ENOTSUP
        case .invalidArgument: EINVAL
        case .notFound: ENOENT
        case .alreadyExists: EEXIST
        case .permissionConflict: EBUSY
        case .locked: EAGAIN
        case .accessDenied: EACCES
        case .tooLarge: EFBIG
        case .cancelled: ECANCELED
        case .timedOut: ETIMEDOUT
        case .system(let number): number
        }
    }

    /// An error from a system call: `message` says what was tried on which thing, the kernel's own text follows it.
    /// - Parameter number: a positive errno.
    package init(errno number: Int32, _ message: String) {
        let code: Code =
            switch number {
            case EIO: .io
            case ENOSPC, EDQUOT: .noSpace
            case ENOMEM: .noMemory
            case EROFS: .readOnly
            case ENOTSUP, ENOSYS, ENOTTY: .unsupported
            case EINVAL: .invalidArgument
            case ENOENT: .notFound
            case EEXIST: .alreadyExists
            case EBUSY: .permissionConflict
            case EACCES, EPERM: .accessDenied
            case EFBIG: .tooLarge
            case ECANCELED: .cancelled
            case ECONNRESET, EPIPE, ECONNREFUSED, ECONNABORTED: .connection
            case ETIMEDOUT: .timedOut
            default: .system(number)
            }
        self.init(code, "\(message): \(Self.text(ofErrno: number))")
    }

    /// The C library's sentence for an error number.
    package static func text(ofErrno number: Int32) -> String {
        guard let text = unsafe strerror(number) else { return "error \(number)" }
        return unsafe String(cString: text)  // SAFETY: strerror returns a NUL-terminated string that outlives this copy
    }
}
