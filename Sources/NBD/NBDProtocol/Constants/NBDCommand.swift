/// The commands of the transmission phase. A struct, not an enum: any 16-bit number may arrive.
@frozen
package struct NBDCommand: RawRepresentable, Hashable, Sendable {
    package let rawValue: UInt16
    @inlinable package init(rawValue: UInt16) { self.rawValue = rawValue }
    @inlinable package static var read: Self { Self(rawValue: 0) }
    @inlinable package static var write: Self { Self(rawValue: 1) }
    @inlinable package static var disconnect: Self { Self(rawValue: 2) }
    @inlinable package static var flush: Self { Self(rawValue: 3) }
    @inlinable package static var trim: Self { Self(rawValue: 4) }
    @inlinable package static var cache: Self { Self(rawValue: 5) }
    @inlinable package static var writeZeroes: Self { Self(rawValue: 6) }
    @inlinable package static var blockStatus: Self { Self(rawValue: 7) }
    @inlinable package static var resize: Self { Self(rawValue: 8) }
}

extension NBDCommand: CustomStringConvertible {
    package var description: String {
        switch self {
        case .read: "read"
        case .write: "write"
        case .disconnect: "disconnect"
        case .flush: "flush"
        case .trim: "trim"
        case .cache: "cache"
        case .writeZeroes: "write zeroes"
        case .blockStatus: "block status"
        case .resize: "resize"
        default: "command \(rawValue)"
        }
    }
}
