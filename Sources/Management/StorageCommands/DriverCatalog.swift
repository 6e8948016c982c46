import BasicDrivers
package import BlockGraph

/// The drivers of this build: the one list that a new driver is added to.
package enum DriverCatalog {
    package static let registry = DriverRegistry([FileDriver.self, NullDriver.self, RawDriver.self])
}
