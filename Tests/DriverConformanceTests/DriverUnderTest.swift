import BlockGraph
import DriverTesting
import StorageSchema
import StrataBase
import Testing

/// One row of the table: how to build a node of a driver over fresh disks, and what may be expected of it.
///
/// The defaults describe a driver that keeps data, can do everything, and whose requests reach simulated disks below. Say what differs.
struct DriverUnderTest: Sendable, CustomTestStringConvertible {
    /// The driver's name in the catalogue.
    let driver: String
    /// Tells rows of one driver apart.
    var variant = ""

    /// False for drivers that drop what is written.
    var keepsData = true
    /// False when the size cannot be changed; then that has to be refused.
    var canResize = true
    /// False when a larger disk shows anything in its new part.
    var growsWithZeroes = true
    /// The size after a resize may be rounded up to a multiple of this many bytes.
    var resizeUnit = 1
    /// Whether the node lies over simulated disks (`bench.disk`). False: the driver under test reaches a medium by itself, and what is checked
    /// by looking at the disks below is left out.
    var hasSimulatedDisks = true
    /// Failures below that must come out above with their code. A driver that can do without a child leaves some out.
    var passesErrorsOf: Set<SimulatedDisk.Operation> = [.read, .write, .flush]
    /// False when reading writes below, so that the node cannot be read while it is read-only: becoming so is refused then.
    var isReadableReadOnly = true
    /// Bytes beyond which the node is one that the driver cannot shrink, grow or address: the sizes that tests choose are multiples of it.
    var sizeUnit = 1

    /// Makes what the node stands on and returns its options; the name is set by the caller. Disks come from `bench.disk`, which gives them the
    /// alignment of the current case.
    let build: @Sendable (_ bench: ConformanceBench, _ byteCount: Int) async throws -> BlockdevOptions

    var testDescription: String { variant.isEmpty ? driver : "\(driver) (\(variant))" }
}

/// One row at one alignment of the disks below.
struct ConformanceCase: Sendable, CustomTestStringConvertible {
    let row: DriverUnderTest
    let alignment: Int

    var testDescription: String { "\(row.testDescription) over \(alignment)" }

    static let all = DriverTable.rows.flatMap { row in [1, 512, 4096].map { ConformanceCase(row: row, alignment: $0) } }
    static let overSimulatedDisks = all.filter(\.row.hasSimulatedDisks)
}
