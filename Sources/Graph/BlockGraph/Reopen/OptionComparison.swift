import QAPIRuntime
import StorageSchema
import StrataBase

/// Finds options that a reopen would change and cannot. The sentences are QEMU's: management software looks for them.
enum OptionComparison {
    /// Options of every node that may change; `driver`, `node-name` and `active` may not.
    private static let changeable: Set<String> = ["discard", "cache", "read-only", "auto-read-only", "force-share", "detect-zeroes"]

    /// - Parameters:
    ///   - children: names of options that stand for children.
    ///   - own: the driver's own options that may change.
    ///   - isActive: what the node is now; saying so again is no change.
    static func refuseChanges(
        from old: JSONObject, to new: JSONObject, children: Set<String>, own: Set<String>, isActive: Bool
    ) throws(BlockError) {
        func isOpen(_ key: String) -> Bool { changeable.contains(key) || own.contains(key) || children.contains(key) }
        if let driver = new["driver"], driver != old["driver"] { throw refusal("driver") }
        for member in new.members where !isOpen(member.key) {
            switch member.key {
            case "node-name", "driver": break  // the node was found by the one and checked for the other
            case "active": if member.value != .bool(isActive) { throw refusal("active") }
            default: if old[member.key] != member.value { throw refusal(member.key) }
            }
        }
        for member in old.members where !isOpen(member.key) && new[member.key] == nil && !["node-name", "active"].contains(member.key) {
            throw BlockError(.invalidArgument, "Option '\(member.key)' cannot be reset to its default value")
        }
    }

    static func refusal(_ option: String) -> BlockError { BlockError(.invalidArgument, "Cannot change the option '\(option)'") }
}
