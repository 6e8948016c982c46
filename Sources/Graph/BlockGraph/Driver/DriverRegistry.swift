import StorageSchema
package import StrataBase

/// The drivers that a graph can use, by name. Filled from an explicit list (`DriverCatalog`), never as a side effect of linking.
package struct DriverRegistry: Sendable {
    private var byName: [String: any BlockDriver.Type]

    package init(_ drivers: [any BlockDriver.Type]) {
        var byName: [String: any BlockDriver.Type] = [:]
        for driver in drivers { byName[driver.formatName] = driver }
        self.byName = byName
    }

    /// The same with another driver under the name that it bears: for tests, which put a disk of their own below the drivers they look at.
    package func replacing(_ driver: any BlockDriver.Type) -> DriverRegistry {
        var copy = self
        copy.byName[driver.formatName] = driver
        return copy
    }

    package var names: [String] { byName.keys.sorted() }

    /// - Throws: `.invalidArgument` for a driver that this build does not have.
    package func driver(named name: String) throws(BlockError) -> any BlockDriver.Type {
        guard let driver = byName[name] else {
            if BlockdevDriver(rawValue: name) != nil { throw BlockError(.invalidArgument, "Driver '\(name)' is not available in this build") }
            throw BlockError(.invalidArgument, "Unknown driver '\(name)'")
        }
        return driver
    }
}
