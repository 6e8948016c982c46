import StorageSchema
import StrataBase

/// Rules as they are written down, in a file or in the options of a node.
struct BlkdebugRuleList: Sendable, Hashable {
    var injections: [BlkdebugInjectErrorOptions] = []
    var changes: [BlkdebugSetStateOptions] = []

    init() {}

    init(injections: [BlkdebugInjectErrorOptions], changes: [BlkdebugSetStateOptions]) {
        self.injections = injections
        self.changes = changes
    }

    init(_ options: BlockdevOptionsBlkdebug) { self.init(injections: options.injectError ?? [], changes: options.setState ?? []) }

    static func + (first: Self, second: Self) -> Self {
        Self(injections: first.injections + second.injections, changes: first.changes + second.changes)
    }
}

/// The rules of one blkdebug node and where it stands among them. A value: the driver guards it.
///
/// The life of a rule, as observed on QEMU 10.0.2: a point that is reached arms every rule for it whose state fits. The first that is armed at a
/// point disarms all that were armed at earlier points. Armed rules are asked about every request, in the order in which they were given; the
/// first that fits decides, even when its error is none.
struct BlkdebugRules: Sendable {
    /// A kind of request, as a set because a rule without a kind stands for several.
    struct RequestKinds: OptionSet, Sendable {
        let rawValue: UInt8
        static let read = RequestKinds(rawValue: 1 << 0)
        static let write = RequestKinds(rawValue: 1 << 1)
        static let writeZeroes = RequestKinds(rawValue: 1 << 2)
        static let discard = RequestKinds(rawValue: 1 << 3)
        static let flush = RequestKinds(rawValue: 1 << 4)
        static let blockStatus = RequestKinds(rawValue: 1 << 5)
        /// What a rule without a kind is about.
        static let usual: RequestKinds = [.read, .write, .writeZeroes, .discard, .flush]

        init(rawValue: UInt8) { self.rawValue = rawValue }

        init(_ kind: BlkdebugIOType) {
            switch kind {
            case .read: self = .read
            case .write: self = .write
            case .writeZeroes: self = .writeZeroes
            case .discard: self = .discard
            case .flush: self = .flush
            case .blockStatus: self = .blockStatus
            }
        }
    }

    private struct Injection: Sendable {
        let event: BlkdebugEvent
        let state: Int
        let kinds: RequestKinds
        /// Positive; anything else lets the request pass.
        let errno: Int
        /// The byte that a request must touch; nil for any.
        let offset: Int?
        let isOnce: Bool
        var isArmed = false
        var isSpent = false
    }

    private var injections: [Injection]
    private let changes: [BlkdebugSetStateOptions]
    /// The state that the `state` of rules is compared with.
    private(set) var state = 1

    /// The rules of a list, in the first state.
    /// - Throws: `.invalidArgument` for a sector that no disk has.
    init(_ rules: BlkdebugRuleList) throws(BlockError) {
        var list: [Injection] = []
        for options in rules.injections {
            let sector = options.sector ?? -1
            guard sector <= Int.max / 512 else { throw BlockError(.invalidArgument, "The sector \(sector) of an inject-error rule lies beyond every disk") }
            list.append(
                Injection(
                    event: options.event, state: options.state ?? 0, kinds: options.iotype.map { RequestKinds($0) } ?? .usual,
                    errno: options.errno ?? 5, offset: sector == -1 ? nil : sector < -1 ? .min : sector * 512, isOnce: options.once ?? false))
        }
        injections = list
        changes = rules.changes
        reach(.none)
    }

    /// A request has got to `event`.
    mutating func reach(_ event: BlkdebugEvent) {
        let fits = injections.indices.filter { index in
            let rule = injections[index]
            return rule.event == event && !rule.isSpent && (rule.state == 0 || rule.state == state)
        }
        if !fits.isEmpty {
            for index in injections.indices { injections[index].isArmed = false }
            for index in fits { injections[index].isArmed = true }
        }
        // All rules are looked at in the state that the event found; the last change wins.
        let found = state
        for change in changes where change.event == event && (change.state ?? 0 == 0 || change.state == found) { state = change.newState }
    }

    /// What a request is to fail with.
    /// - Parameters: the first byte of the request and how many it has.
    /// - Returns: an errno, or nil to let it pass.
    mutating func failure(of kind: RequestKinds, at offset: Int, byteCount: Int) -> Int32? {
        let decisive = injections.indices.first { index in
            let rule = injections[index]
            guard rule.isArmed, !rule.isSpent, !rule.kinds.isDisjoint(with: kind) else { return false }
            guard let wanted = rule.offset else { return true }
            return wanted >= offset && wanted - offset < byteCount
        }
        guard let decisive else { return nil }
        let rule = injections[decisive]
        guard rule.errno > 0 else { return nil }
        if rule.isOnce { injections[decisive].isSpent = true }
        return Int32(clamping: rule.errno)
    }
}
