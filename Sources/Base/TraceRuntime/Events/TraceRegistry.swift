import Synchronization

/// All trace points of the process by name. Any thread.
package enum TraceRegistry {
    private struct State {
        var modules: Set<String> = []
        var events: [TraceEvent] = []
        var numbers: [String: Int] = [:]
    }
    private static let state = Mutex(State())

    /// Makes the events of some modules known; a module that is known already is passed over.
    /// - Precondition: no two events have one name: `trace-events` files are ours.
    package static func register(_ modules: [TraceModule]) {
        state.withLock { state in
            for module in modules where state.modules.insert(module.name).inserted {
                for event in module.events {
                    let number = state.events.count
                    let previous = state.numbers.updateValue(number, forKey: event.name)
                    precondition(previous == nil, "the name of a trace event belongs to one module only")
                    event.number.store(UInt32(number), ordering: .relaxed)
                    state.events.append(event)
                }
            }
        }
    }

    /// In the order in which they were registered.
    package static var events: [TraceEvent] { state.withLock { $0.events } }

    package static func event(named name: String) -> TraceEvent? {
        state.withLock { state in state.numbers[name].map { state.events[$0] } }
    }

    package static func events(whereName isWanted: (String) -> Bool) -> [TraceEvent] { events.filter { isWanted($0.name) } }

    /// Turns events on or off; those that are not available stay off.
    package static func set(_ events: [TraceEvent], on isOn: Bool) {
        state.withLock { state in
            for event in events where event.isAvailable {
                event.set(isOn)
                TraceSlots.set(event.slot, isOn || state.events.contains { $0.slot == event.slot && $0.isOn })
            }
        }
    }
}
