internal import CStrataLinux

/// Something that a context calls when its descriptor is ready. Called on the context's thread; must not block.
package protocol EventSource: AnyObject, Sendable {
    func ready(_ events: ReadyEvents)
}

/// An event source that can also be asked at any time whether something has come (see `IOContext.spin`).
package protocol SpinningSource: EventSource {
    /// Does what is there to be done without waiting. True if there was something.
    func spin() -> Bool
}

package struct ReadyEvents: OptionSet, Hashable, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
    package static let readable = ReadyEvents(rawValue: 1 << 0)
    package static let writable = ReadyEvents(rawValue: 1 << 1)
    /// The peer has gone or the descriptor has failed. Reported whether asked for or not.
    package static let hangUp = ReadyEvents(rawValue: 1 << 2)
}

/// Names one watch of one context. The generation tells a watch from its predecessor in the same slot.
package struct WatchToken: Hashable, Sendable {
    let slot: UInt32
    let generation: UInt32

    init(slot: UInt32, generation: UInt32) {
        self.slot = slot
        self.generation = generation
    }

    init(rawValue: UInt64) { self.init(slot: UInt32(truncatingIfNeeded: rawValue), generation: UInt32(truncatingIfNeeded: rawValue >> 32)) }
    var rawValue: UInt64 { UInt64(generation) << 32 | UInt64(slot) }
}
