package import ManagedObjects
import QAPIRuntime
package import StorageSchema
package import StrataBase

// The group as users make it and look at it.

extension ThrottleGroup {
    /// - Throws: `.invalidArgument` for limits that contradict each other.
    package convenience init(_ properties: ThrottleGroupProperties) throws(BlockError) {
        var settings = ThrottleSettings()
        for single in Self.singles {
            guard let value = properties[keyPath: single.given] else { continue }
            if value < 0 { throw BlockError(.invalidArgument, "Property values cannot be negative") }
            if single.isLength, value > UInt32.max {
                throw BlockError(.invalidArgument, "\(single.name) value must be in the range [0, \(UInt32.max)]")
            }
            var changes = ThrottleLimits()
            changes[keyPath: single.limit] = value
            settings.apply(changes)
        }
        if let limits = properties.limits { settings.apply(limits) }
        try self.init(settings)
    }

    package static var properties: [ObjectProperty<ThrottleGroup>] {
        let limits = ObjectProperty<ThrottleGroup>("limits", type: "ThrottleLimits", get: { $0.settings.asLimits }) {
            (group: ThrottleGroup, limits: ThrottleLimits) throws(QMPError) in
            do throws(BlockError) { try group.change(to: limits) } catch { throw QMPError(error.description) }
        }
        return [limits] + singles.map { single in
            ObjectProperty<ThrottleGroup>(single.name, type: "int", get: { $0.settings.asLimits[keyPath: single.limit] ?? 0 }) {
                (_: ThrottleGroup, _: Int) throws(QMPError) in
                throw QMPError("Property cannot be set after initialization")
            }
        }
    }

    /// A limit under a name of its own: as it is given when the object is made, and where it lies among the limits.
    private struct Single: Sendable {
        let name: String
        let given: any KeyPath<ThrottleGroupProperties, Int?> & Sendable
        let limit: any WritableKeyPath<ThrottleLimits, Int?> & Sendable
        var isLength: Bool { name.hasSuffix("-length") }
    }

    private static let singles: [Single] = [
        Single(name: "x-iops-total", given: \.xIopsTotal, limit: \.iopsTotal),
        Single(name: "x-iops-total-max", given: \.xIopsTotalMax, limit: \.iopsTotalMax),
        Single(name: "x-iops-total-max-length", given: \.xIopsTotalMaxLength, limit: \.iopsTotalMaxLength),
        Single(name: "x-iops-read", given: \.xIopsRead, limit: \.iopsRead),
        Single(name: "x-iops-read-max", given: \.xIopsReadMax, limit: \.iopsReadMax),
        Single(name: "x-iops-read-max-length", given: \.xIopsReadMaxLength, limit: \.iopsReadMaxLength),
        Single(name: "x-iops-write", given: \.xIopsWrite, limit: \.iopsWrite),
        Single(name: "x-iops-write-max", given: \.xIopsWriteMax, limit: \.iopsWriteMax),
        Single(name: "x-iops-write-max-length", given: \.xIopsWriteMaxLength, limit: \.iopsWriteMaxLength),
        Single(name: "x-bps-total", given: \.xBpsTotal, limit: \.bpsTotal),
        Single(name: "x-bps-total-max", given: \.xBpsTotalMax, limit: \.bpsTotalMax),
        Single(name: "x-bps-total-max-length", given: \.xBpsTotalMaxLength, limit: \.bpsTotalMaxLength),
        Single(name: "x-bps-read", given: \.xBpsRead, limit: \.bpsRead),
        Single(name: "x-bps-read-max", given: \.xBpsReadMax, limit: \.bpsReadMax),
        Single(name: "x-bps-read-max-length", given: \.xBpsReadMaxLength, limit: \.bpsReadMaxLength),
        Single(name: "x-bps-write", given: \.xBpsWrite, limit: \.bpsWrite),
        Single(name: "x-bps-write-max", given: \.xBpsWriteMax, limit: \.bpsWriteMax),
        Single(name: "x-bps-write-max-length", given: \.xBpsWriteMaxLength, limit: \.bpsWriteMaxLength),
        Single(name: "x-iops-size", given: \.xIopsSize, limit: \.iopsSize),
    ]
}
