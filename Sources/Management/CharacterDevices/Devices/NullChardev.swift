package import ManagedObjects
import StrataBase

/// Nothing comes, and what goes is lost.
package final class NullChardev: CharacterDevice {
    package static let typeName = "chardev-null"
    package static let properties: [ObjectProperty<NullChardev>] = []
    package let label: String
    package let slot: FrontendSlot
    package let filename = "null"

    init(_ label: String, log: LogOptions) throws(BlockError) {
        self.label = label
        slot = try FrontendSlot(log)
    }

    package func start() { slot.open(SinkStream { _ in }) }
    package func shutDown() {}
}
