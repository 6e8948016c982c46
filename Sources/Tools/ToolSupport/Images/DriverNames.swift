import BlockGraph
import StorageCommands

/// The drivers that a user can name.
package enum DriverNames {
    package static var all: [String] { DriverCatalog.registry.names }
}
