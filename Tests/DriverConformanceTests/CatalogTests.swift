import BlockGraph
import StorageCommands
import StrataBase
import Testing

@Suite("driver conformance: the table")
struct CatalogTests {
    @Test("every driver of the catalogue has a row in the table, and every row a driver in the catalogue")
    func complete() {
        let inCatalog = Set(DriverCatalog.registry.names), inTable = Set(DriverTable.rows.map(\.driver))
        #expect(inCatalog.subtracting(inTable).subtracting(DriverTable.readOnly).sorted() == [], "add a row to Tests/DriverConformanceTests/Table/DriverTable.swift")
        #expect(inTable.subtracting(inCatalog).sorted() == [])
    }

    @Test("limits that a node declares make sense", arguments: ConformanceCase.all)
    func limits(current: ConformanceCase) async throws {
        try await ConformanceBench.run(current) { _, backend in
            let limits = backend.node.driver.limits
            #expect(limits.requestAlignment.isPowerOfTwo && limits.memoryAlignment.isPowerOfTwo)
            #expect(limits.maxTransfer >= limits.requestAlignment && limits.maxZero > 0 && limits.maxDiscard > 0)
            #expect(limits.zeroAlignment > 0 && limits.discardAlignment > 0 && limits.optimalTransfer >= 0)
            // The graph pads a request at the end of a node to whole units, which must exist.
            #expect(backend.length.isMultiple(of: limits.requestAlignment), "\(backend.length) bytes in units of \(limits.requestAlignment)")
        }
    }
}
