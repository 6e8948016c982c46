import StorageSchema
package import StrataBase

/// The drivers that a graph can use, by name. Filled from an explicit list (`DriverCatalog`), never as a side effect of linking.
package struct DriverRegistry: Sendable {
    private let byName: [String: any BlockDriver.Type]

    package init(_ drivers: [any BlockDriver.Type]) {
        var byName: [String: any BlockDriver.Type] = [:]
        for driver in drivers { byName[driver.formatName] = driver }
        self.byName = byName
    }

    package var names: [String] { byName.keys.sorted() }

    /// - Throws: `.invalidArgument` for a driver that this build does not have.
    package func driver(named name: String) throws(BlockError) -> any BlockDriver.Type {
        guard let driver = byName[name] else { throw BlockError(.invalidArgument, "Unknown driver '\(name)'") }
        return driver
    }
}
