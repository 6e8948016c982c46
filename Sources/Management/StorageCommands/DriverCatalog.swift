import BasicDrivers
package import BlockGraph
import QCOW2

/// The drivers of this build: the one list that a new driver is added to.
package enum DriverCatalog {
    package static let registry = DriverRegistry([FileDriver.self, NullDriver.self, QCOW2Driver.self, RawDriver.self])
}
