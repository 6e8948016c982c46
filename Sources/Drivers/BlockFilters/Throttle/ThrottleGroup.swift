import IOCore
import ManagedObjects
package import StorageSchema
package import StrataBase
import Synchronization

/// Limits that several nodes share (`object-add`, type `throttle-group`). Any thread.
///
/// A request that may not start yet waits in line. The group has one timer for each direction, for the request whose turn it is; it runs on the
/// context where that request waits, so that no other thread has to live for it.
package final class ThrottleGroup: ManagedObject {
    package typealias Direction = ThrottleMeter.Direction

    fileprivate struct State: Sendable {
        var meter: ThrottleMeter
        var queues: [ThrottleQueue] = [ThrottleQueue(), ThrottleQueue()]
        /// By direction: which timer is the one that counts, and whether it runs.
        var timers: [(generation: UInt64, isArmed: Bool)] = [(0, false), (0, false)]
        /// Members that are being drained: how often.
        var drains: [Int: Int] = [:]
        var nextMember = 0
        var nextWaiter: UInt64 = 0
    }

    fileprivate struct Alarm: Sendable {
        var direction: Direction
        var generation: UInt64
        var delay: Int64
        var context: IOContext?
    }

    package static let typeName = "throttle-group"

    private let clock: any ThrottleClock
    private let state: Mutex<State>
    /// A bit for each direction that is limited: all that a request looks at where nothing is.
    private let limited: Atomic<UInt8>
    /// The waiters that have been let go and have not noticed yet.
    private let admitted = AsyncCondition(Set<UInt64>())

    package init(_ settings: ThrottleSettings, clock: any ThrottleClock = MachineThrottleClock()) throws(BlockError) {
        try settings.check()
        self.clock = clock
        let meter = ThrottleMeter(settings, now: clock.now)
        state = Mutex(State(meter: meter))
        limited = Atomic(Self.bits(meter))
    }

    private static func bits(_ meter: ThrottleMeter) -> UInt8 {
        Direction.allCases.reduce(0) { bits, direction in meter.limits(direction) ? bits | 1 << UInt8(direction.rawValue) : bits }
    }

    /// Whether requests of that direction have to ask. One load.
    package func limits(_ direction: Direction) -> Bool { limited.load(ordering: .relaxed) & (1 << UInt8(direction.rawValue)) != 0 }

    // MARK: Limits

    package var settings: ThrottleSettings { state.withLock { $0.meter.settings } }

    /// Puts other limits into force. The buckets start empty, and whoever waits is judged by the new limits at once.
    /// - Throws: what is wrong with them; then the old ones stay.
    package func change(to changes: ThrottleLimits) throws(BlockError) {
        let outcome = state.withLock { state -> Result<Void, BlockError> in
            var settings = state.meter.settings
            settings.apply(changes)
            do throws(BlockError) { try settings.check() } catch { return .failure(error) }
            state.meter = ThrottleMeter(settings, now: clock.now)
            limited.store(Self.bits(state.meter), ordering: .relaxed)
            for index in state.timers.indices { state.timers[index] = (state.timers[index].generation + 1, false) }
            return .success(())
        }
        try outcome.get()
        Trace.throttleLimits(group: self)
        for direction in Direction.allCases { proceed(direction) }
    }

    /// How many requests stand in line.
    package var waitingCount: Int { state.withLock { $0.queues.reduce(0) { $0 + $1.count } } }

    // MARK: Members

    /// A new member: a number to call the others by.
    package func join() -> Int {
        state.withLock { state in
            state.nextMember += 1
            return state.nextMember
        }
    }

    /// Lets what a member has waiting go, and whatever comes from it until `endDrain`, without delay. Nests.
    package func beginDrain(of member: Int) {
        let released = state.withLock { state in
            state.drains[member, default: 0] += 1
            return state.release(member)
        }
        letGo(released)
        // Whose turn it is may have changed.
        for direction in Direction.allCases { proceed(direction) }
    }

    package func endDrain(of member: Int) {
        state.withLock { state in
            let left = (state.drains[member] ?? 1) - 1
            state.drains[member] = left == 0 ? nil : left
        }
    }

    // MARK: Requests

    /// Returns when the request may start; it has been counted then.
    package func admit(_ byteCount: Int, _ direction: Direction, member: Int) async {
        guard limits(direction) else { return }
        let context = IOContext.current
        let waiter = state.withLock { state -> UInt64? in
            let mayStart = state.drains[member] != nil
                || (state.queues[direction.rawValue].isEmpty && state.meter.waitingTime(direction, now: clock.now) == 0)
            if mayStart {
                state.meter.add(byteCount, direction)
                return nil
            }
            state.nextWaiter += 1
            state.queues[direction.rawValue].append(.init(id: state.nextWaiter, byteCount: byteCount, context: context), of: member)
            return state.nextWaiter
        }
        guard let waiter else { return }
        Trace.throttleWaitBegin(group: self, member: member, direction: "\(direction)", bytes: byteCount)
        defer { Trace.throttleWaitEnd(group: self, member: member, direction: "\(direction)", bytes: byteCount) }
        proceed(direction)
        await admitted.wait { $0.remove(waiter) == nil ? nil : () }
    }

    /// Lets go whoever may start now, and sets the timer for the next.
    private func proceed(_ direction: Direction) {
        let (released, alarm) = state.withLock { state in state.proceed(direction, now: clock.now) }
        letGo(released)
        guard let alarm else { return }
        clock.call(after: alarm.delay, on: alarm.context) { [weak self] in self?.timerFired(alarm.direction, alarm.generation) }
    }

    private func timerFired(_ direction: Direction, _ generation: UInt64) {
        let isCurrent = state.withLock { state in
            guard state.timers[direction.rawValue].generation == generation else { return false }
            state.timers[direction.rawValue].isArmed = false
            return true
        }
        if isCurrent { proceed(direction) }
    }

    private func letGo(_ waiters: [ThrottleQueue.Waiter]) {
        if !waiters.isEmpty { admitted.update { $0.formUnion(waiters.map(\.id)) } }
    }
}

extension ThrottleGroup.State {
    fileprivate mutating func proceed(_ direction: ThrottleMeter.Direction, now: Int64) -> ([ThrottleQueue.Waiter], ThrottleGroup.Alarm?) {
        let index = direction.rawValue
        var released: [ThrottleQueue.Waiter] = []
        while let first = queues[index].first {
            let delay = meter.waitingTime(direction, now: now)
            if delay > 0 {
                if timers[index].isArmed { return (released, nil) }
                timers[index] = (timers[index].generation + 1, true)
                return (released, .init(direction: direction, generation: timers[index].generation, delay: delay, context: first.context))
            }
            meter.add(first.byteCount, direction)
            if let waiter = queues[index].takeFirst() { released.append(waiter) }
        }
        return (released, nil)
    }

    /// What a member has waiting goes at once; it counts all the same. A timer that ran for it is forgotten.
    fileprivate mutating func release(_ member: Int) -> [ThrottleQueue.Waiter] {
        var released: [ThrottleQueue.Waiter] = []
        for direction in ThrottleMeter.Direction.allCases {
            let waiters = queues[direction.rawValue].takeAll(of: member)
            if waiters.isEmpty { continue }
            for waiter in waiters { meter.add(waiter.byteCount, direction) }
            timers[direction.rawValue] = (timers[direction.rawValue].generation + 1, false)
            released += waiters
        }
        return released
    }
}
