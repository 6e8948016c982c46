import BlockGraph
import StrataBase

// What the checks of these formats share.

extension CheckReport {
    /// More are counted, but not told.
    private static let maximumMessages = 1000

    /// Notes one thing that is wrong.
    mutating func noteDamage(_ message: String) {
        corruptions += 1
        if messages.count < Self.maximumMessages { messages.append("ERROR: \(message)") }
    }

    /// For a format that is never written to.
    init(refusing repair: CheckRepair, for format: String) throws(BlockError) {
        guard repair.isEmpty else { throw BlockError(.unsupported, "Images of format '\(format)' cannot be repaired") }
        self.init()
    }
}
