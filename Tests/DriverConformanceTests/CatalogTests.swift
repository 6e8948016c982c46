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

    @Test("a node knows every ability that its driver declares", arguments: ConformanceCase.all.filter { $0.alignment == 512 })
    func abilities(current: ConformanceCase) async throws {
        try await ConformanceBench.run(current) { _, backend in
            let driver = backend.node.driver
            #expect((driver.asFlushing != nil) == (driver is any Flushing))
            #expect((driver.asZeroWriting != nil) == (driver is any ZeroWriting))
            #expect((driver.asDiscarding != nil) == (driver is any Discarding))
            #expect((driver.asResizing != nil) == (driver is any Resizing))
            #expect((driver.asStatusReporting != nil) == (driver is any StatusReporting))
            #expect((driver.asHostFileBacked != nil) == (driver is any HostFileBacked))
            #expect((driver.asFaultObserving != nil) == (driver is any FaultObserving))
            #expect((driver.asDraining != nil) == (driver is any Draining))
            #expect((driver.asCopyRanging != nil) == (driver is any CopyRanging))
            #expect((driver.asCompressedWriting != nil) == (driver is any CompressedWriting))
            #expect((driver.asChecking != nil) == (driver is any Checking))
            #expect((driver.asSnapshotting != nil) == (driver is any Snapshotting))
            #expect((driver.asImageDescribing != nil) == (driver is any ImageDescribing))
            #expect((driver.asBitmapPersisting != nil) == (driver is any BitmapPersisting))
            #expect((driver.asChildChanging != nil) == (driver is any ChildChanging))
        }
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
