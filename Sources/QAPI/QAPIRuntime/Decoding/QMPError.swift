public import StrataBase

/// The classes of errors that a QMP client can tell apart.
public enum QMPErrorClass: String, CaseIterable, Hashable, Sendable {
    case genericError = "GenericError"
    case commandNotFound = "CommandNotFound"
    case deviceNotActive = "DeviceNotActive"
    case deviceNotFound = "DeviceNotFound"
    case kvmMissingCap = "KVMMissingCap"
}

/// An error as it goes over QMP: a class and one sentence.
public struct QMPError: Error, Hashable, Sendable, CustomStringConvertible {
    public var errorClass: QMPErrorClass
    /// One sentence without a newline.
    public var message: String

    public init(_ message: String, class errorClass: QMPErrorClass = .genericError) {
        self.errorClass = errorClass
        self.message = message
    }

    /// Errors of the block layer carry no class of their own.
    public init(_ error: BlockError) {
        // Who is stopped by somebody else has to know what to do about it, and scripts that look for QEMU's sentence find it in front.
        if error.code == .permissionConflict, let hint = error.hint {
            self.init("\(error.description). \(hint)")
        } else {
            self.init(error.description)
        }
    }

    /// Whatever a command handler threw.
    public init(_ error: any Error) {
        switch error {
        case let error as QMPError: self = error
        case let error as BlockError: self.init(error)
        case let error as JSONError: self.init(error.message)
        default: self.init("\(error)")
        }
    }

    public var description: String { message }

    /// The value of the member `error` of a QMP answer.
    public var json: JSONValue { ["class": .string(errorClass.rawValue), "desc": .string(message)] }
}

extension BlockError {
    /// A bad parameter, for callers that speak of the block layer rather than of QMP.
    public init(_ error: QMPError) {
        self.init(.invalidArgument, error.message)
    }
}
