import QAPIRuntime
package import StorageSchema
package import StrataBase

/// All limits of a throttle group, complete: what was not given has its default.
package struct ThrottleSettings: Hashable, Sendable {
    /// One of the six limits, in units per second; 0: none.
    package struct Limit: Hashable, Sendable {
        package var average = 0
        package var maximum = 0
        /// Seconds.
        package var length = 1
    }

    /// The limits by what they count (bytes, requests) and in which direction. The raw value is the place in `limits`.
    package enum Kind: Int, CaseIterable, Sendable { case bytesTotal, bytesRead, bytesWrite, requestsTotal, requestsRead, requestsWrite }

    package private(set) var limits = [Limit](repeating: Limit(), count: Kind.allCases.count)
    /// A request of more bytes counts as several; 0: never.
    package var requestSize = 0

    /// The largest rate: what a double still counts exactly.
    static let largestValue = 1_000_000_000_000_000

    package init() {}

    package subscript(kind: Kind) -> Limit {
        get { limits[kind.rawValue] }
        set { limits[kind.rawValue] = newValue }
    }

    /// Replaces what `changes` mentions.
    package mutating func apply(_ changes: ThrottleLimits) {
        func set(_ kind: Kind, _ average: Int?, _ maximum: Int?, _ length: Int?, in limits: inout [Limit]) {
            if let average { limits[kind.rawValue].average = average }
            if let maximum { limits[kind.rawValue].maximum = maximum }
            if let length { limits[kind.rawValue].length = length }
        }
        set(.bytesTotal, changes.bpsTotal, changes.bpsTotalMax, changes.bpsTotalMaxLength, in: &limits)
        set(.bytesRead, changes.bpsRead, changes.bpsReadMax, changes.bpsReadMaxLength, in: &limits)
        set(.bytesWrite, changes.bpsWrite, changes.bpsWriteMax, changes.bpsWriteMaxLength, in: &limits)
        set(.requestsTotal, changes.iopsTotal, changes.iopsTotalMax, changes.iopsTotalMaxLength, in: &limits)
        set(.requestsRead, changes.iopsRead, changes.iopsReadMax, changes.iopsReadMaxLength, in: &limits)
        set(.requestsWrite, changes.iopsWrite, changes.iopsWriteMax, changes.iopsWriteMaxLength, in: &limits)
        if let size = changes.iopsSize { requestSize = size }
    }

    /// As `qom-get` shows them.
    package var asLimits: ThrottleLimits {
        let (bt, br, bw) = (self[.bytesTotal], self[.bytesRead], self[.bytesWrite])
        let (rt, rr, rw) = (self[.requestsTotal], self[.requestsRead], self[.requestsWrite])
        return ThrottleLimits(
            iopsTotal: rt.average, iopsTotalMax: rt.maximum, iopsTotalMaxLength: rt.length, iopsRead: rr.average, iopsReadMax: rr.maximum,
            iopsReadMaxLength: rr.length, iopsWrite: rw.average, iopsWriteMax: rw.maximum, iopsWriteMaxLength: rw.length, bpsTotal: bt.average,
            bpsTotalMax: bt.maximum, bpsTotalMaxLength: bt.length, bpsRead: br.average, bpsReadMax: br.maximum, bpsReadMaxLength: br.length,
            bpsWrite: bw.average, bpsWriteMax: bw.maximum, bpsWriteMaxLength: bw.length, iopsSize: requestSize)
    }

    /// - Throws: `.invalidArgument` for limits that contradict each other, in QEMU's words.
    package func check() throws(BlockError) {
        for (total, parts) in [(Kind.bytesTotal, [Kind.bytesRead, .bytesWrite]), (.requestsTotal, [.requestsRead, .requestsWrite])] {
            let conflicts = parts.contains { part in
                (self[total].average != 0 && self[part].average != 0) || (self[total].maximum != 0 && self[part].maximum != 0)
            }
            if conflicts { throw Self.refusal("bps/iops/max total values and read/write values cannot be used at the same time") }
        }
        if requestSize < 0 { throw Self.refusal("Property values cannot be negative") }
        let countsRequests = [Kind.requestsTotal, .requestsRead, .requestsWrite].contains { self[$0].average != 0 }
        if requestSize != 0, !countsRequests { throw Self.refusal("iops size requires an iops value to be set") }
        for limit in limits { try Self.check(limit) }
    }

    private static func check(_ limit: Limit) throws(BlockError) {
        let allowed = 0...largestValue
        guard allowed.contains(limit.average), allowed.contains(limit.maximum) else {
            throw refusal("bps/iops/max values must be within [0, \(largestValue)]")
        }
        if limit.length == 0 { throw refusal("the burst length cannot be 0") }
        if limit.length != 1, limit.maximum == 0 { throw refusal("burst length set without burst rate") }
        if limit.maximum != 0, limit.length < 0 || limit.length > largestValue / limit.maximum { throw refusal("burst length too high for this burst rate") }
        if limit.maximum != 0, limit.average == 0 { throw refusal("bps_max/iops_max require corresponding bps/iops values") }
        if limit.maximum != 0, limit.maximum < limit.average { throw refusal("bps_max/iops_max cannot be lower than bps/iops") }
    }

    private static func refusal(_ text: String) -> BlockError { BlockError(.invalidArgument, text) }
}
