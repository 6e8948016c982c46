import BasicDrivers
package import BlockGraph
import NBDClient
import QCOW2

/// The drivers of this build: the one list that a new driver is added to.
package enum DriverCatalog {
    package static let registry = DriverRegistry([FileDriver.self, NBDDriver.self, NullDriver.self, QCOW2Driver.self, RawDriver.self])
}
