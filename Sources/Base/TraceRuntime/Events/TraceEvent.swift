import Synchronization

/// One trace point: how it is described, and whether it is on. Made by code that is generated from a module's `trace-events`.
package final class TraceEvent: Sendable {
    /// What a value is, which decides how JSON writes it.
    package enum Kind: Sendable, Hashable { case signed, unsigned, boolean, string, pointer }

    package struct Argument: Sendable, Hashable {
        package let name: String
        package let kind: Kind
        package init(_ name: String, _ kind: Kind) {
            self.name = name
            self.kind = kind
        }
    }

    /// A part of the line that people read.
    package enum Piece: Sendable, Hashable {
        case text(String)
        /// The next argument.
        case value(TraceStyle)
    }

    package let name: String
    /// See `TraceSlots`.
    package let slot: UInt16
    /// False for an event that is declared with `disable`: it is listed, but no code was generated for it.
    package let isAvailable: Bool
    package let arguments: [Argument]
    let pieces: [Piece]
    private let state = Atomic<Bool>(false)
    /// The place in the registry, which stands for the event in records.
    let number = Atomic<UInt32>(0)

    package init(_ name: String, slot: UInt16, isAvailable: Bool, arguments: [Argument], pieces: [Piece]) {
        self.name = name
        self.slot = slot
        self.isAvailable = isAvailable
        self.arguments = arguments
        self.pieces = pieces
    }

    package var isOn: Bool { state.load(ordering: .relaxed) }

    /// Called by the registry, which also keeps the slot in step.
    func set(_ isOn: Bool) { state.store(isOn, ordering: .relaxed) }
}

/// How a value is written for people: what the format string asks for.
package struct TraceStyle: Sendable, Hashable {
    package enum Form: Sendable, Hashable { case decimal, lowercaseHex, uppercaseHex, string, pointer }
    package var form: Form
    /// At least this many characters.
    package var width: Int
    /// Filled with zeroes rather than blanks.
    package var isZeroPadded: Bool
    package var isLeftAligned: Bool
    /// Hexadecimal with `0x` in front.
    package var hasPrefix: Bool

    package init(_ form: Form, width: Int = 0, isZeroPadded: Bool = false, isLeftAligned: Bool = false, hasPrefix: Bool = false) {
        self.form = form
        self.width = width
        self.isZeroPadded = isZeroPadded
        self.isLeftAligned = isLeftAligned
        self.hasPrefix = hasPrefix
    }
}

/// The trace points of one module.
package struct TraceModule: Sendable {
    package let name: String
    package let events: [TraceEvent]
    package init(_ name: String, _ events: [TraceEvent]) {
        self.name = name
        self.events = events
    }
}
