package import IOCore
package import StorageSchema
package import StrataBase

// What a driver may be able to do beyond reading and writing. Not conforming means that the node cannot do it, and the pipeline finds another
// way or reports that it is unsupported. Conformance is looked up once, when the node is made.

/// Has something to make durable.
package protocol Flushing: BlockDriver {
    /// Everything acknowledged before the call is on stable storage after it, also what an earlier flush that failed was to bring there. A driver that
    /// cannot tell what became of that fails every later flush too, as `HostFile.flush` does.
    func flush() async throws(BlockError)
    /// Advice that a flush will follow: the disk may begin with data that wait in the page cache. Returns at once. Promises nothing.
    func startWriteback()
}

extension Flushing {
    package func startWriteback() {}
}

/// Can write zeroes faster than as data.
package protocol ZeroWriting: BlockDriver {
    /// `.unsupported`: nothing was done; the pipeline writes a buffer of zeroes.
    func writeZeroes(_ range: GuestRange, flags: RequestFlags) async throws(BlockError) -> Support
}

/// Can give space back.
package protocol Discarding: BlockDriver {
    /// The content of the range is undefined afterwards, or as the driver's own rules say.
    func discard(_ range: GuestRange) async throws(BlockError) -> Support
}

/// Can change its size.
package protocol Resizing: BlockDriver {
    /// - Parameter exact: the new size is to be exactly this; otherwise a larger one is as good.
    func resize(to byteCount: Int, exact: Bool, preallocation: PreallocMode) async throws(BlockError)
}

/// Knows what is allocated.
package protocol StatusReporting: BlockDriver {
    /// - Parameter precise: find out about zeroes although it costs time.
    func blockStatus(of range: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus
    /// The same without waiting; nil when that is not possible.
    func tryBlockStatus(of range: GuestRange, precise: Bool) -> BlockStatus?
}

extension StatusReporting {
    package func tryBlockStatus(of range: GuestRange, precise: Bool) -> BlockStatus? { nil }
}

/// Can store data compressed: writes with `.compressed`, which is then one of its `supportedWriteFlags`.
package protocol CompressedWriting: BlockDriver {
    /// How many bytes are compressed together: compressed writes start at and are multiples of it, except at the end of the node. Nil when
    /// this node cannot (a filter over a format that cannot).
    var compressionUnit: Int? { get }
}

/// Holds requests back by itself, for a time that may be long.
package protocol Draining: BlockDriver {
    /// Somebody waits until no request is on the node: from now on none is held back, those that wait already go on. Nests.
    func beginDrain()
    /// The waiting is over.
    func endDrain()
    /// Waits for requests that the driver makes by itself and that nobody above waits for. No request from above is on the node.
    func waitForOwnRequests() async
}

extension Draining {
    package func waitForOwnRequests() async {}
}

/// Can forget what it holds itself.
package protocol Emptying: BlockDriver {
    /// Afterwards everything shows the backing file, or zeroes. No guest request runs; the node may be written.
    func makeEmpty() async throws(BlockError)
}

/// Knows how much storage its data takes on the host.
package protocol SpaceReporting: BlockDriver {
    /// Bytes; nil when that cannot be found out.
    var allocatedByteCount: Int? { get }
}

/// Can tell which part of a host file holds a range, byte for byte, so that the kernel can move the data by itself.
package protocol HostFileBacked: BlockDriver {
    /// Nil when the range does not lie in one piece of one file, or must not be read behind the driver's back. Valid for the current turn.
    func hostFileRange(of range: GuestRange) -> HostFileRange?
}

/// A run of bytes in an open host file.
package struct HostFileRange: Sendable, Hashable {
    package var descriptor: Int32
    package var offset: Int
    package init(descriptor: Int32, offset: Int) {
        self.descriptor = descriptor
        self.offset = offset
    }
}

/// Has metadata that can be checked for consistency.
package protocol Checking: BlockDriver {
    /// Looks, and repairs what it may. What is left afterwards is in the report's counts, what was repaired in `corruptionsFixed` and `leaksFixed`.
    /// A task that is cancelled ends a check with `.cancelled`, and a repair before it has changed anything.
    /// - Parameters:
    ///   - repair: what may be repaired.
    ///   - progress: told now and then how much of how much is done.
    func check(repair: CheckRepair, progress: (@Sendable (_ done: Int, _ total: Int) -> Void)?) async throws(BlockError) -> CheckReport
}

extension Checking {
    package func check(repair: CheckRepair) async throws(BlockError) -> CheckReport { try await check(repair: repair, progress: nil) }
}

package struct CheckRepair: OptionSet, Hashable, Sendable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    package static let leaks = CheckRepair(rawValue: 1 << 0)
    package static let errors = CheckRepair(rawValue: 1 << 1)
}

/// What a check has found. The counts mean what `qemu-img check` means by them.
package struct CheckReport: Hashable, Sendable {
    /// Things that could not be checked.
    package var checkErrors = 0
    package var corruptions = 0
    package var leaks = 0
    package var corruptionsFixed = 0
    package var leaksFixed = 0
    /// The end of the last cluster in use, in bytes of the file below.
    package var imageEndOffset: Int?
    package var totalClusters: Int?
    package var allocatedClusters: Int?
    package var fragmentedClusters: Int?
    package var compressedClusters: Int?
    /// One sentence for each finding, in the order of discovery, for a person to read; bounded in number.
    package var messages: [String] = []
    package init() {}
}

/// Keeps snapshots of its disk inside the image. No request may be on the node while one is made, applied, deleted or loaded: `BlockGraph+Snapshots`
/// sees to that. Each is done or not done, also over a crash.
package protocol Snapshotting: BlockDriver {
    /// In the image's own order.
    /// - Throws: `.corruptImage` when the table is damaged.
    func listSnapshots() async throws(BlockError) -> [SnapshotInfo]
    /// Names may repeat; the driver chooses an identifier that does not.
    func createSnapshot(named name: String, moment: SnapshotMoment) async throws(BlockError) -> SnapshotInfo
    /// The disk becomes what it was, its size included.
    /// - Throws: `.notFound` when no snapshot is meant.
    func applySnapshot(_ selector: SnapshotSelector) async throws(BlockError)
    func deleteSnapshot(_ selector: SnapshotSelector) async throws(BlockError) -> SnapshotInfo
    /// From now on the node shows the snapshot and takes no writes. For nodes that are read-only.
    func loadSnapshot(_ selector: SnapshotSelector) async throws(BlockError)
}

/// Keeps the state of a machine beside its disk. Nobody else uses the node meanwhile.
package protocol VMStateStoring: BlockDriver {
    /// - Parameter position: bytes from the beginning of the state. What was never written reads as zeroes, however far it is.
    func readVMState(_ target: IOVector, at position: Int) async throws(BlockError)
    /// - Throws: `.tooLarge` for a place that the format cannot map.
    func writeVMState(_ source: IOVector, at position: Int) async throws(BlockError)
}

/// Which snapshot is meant: the first that has the identifier and the name, as far as they are given.
package struct SnapshotSelector: Hashable, Sendable {
    package var id: String?
    package var name: String?

    package init(id: String? = nil, name: String? = nil) {
        self.id = id
        self.name = name
    }
}

/// What a snapshot says about the moment when it was taken.
package struct SnapshotMoment: Hashable, Sendable {
    /// Since 1970, UTC.
    package var seconds: Int
    package var nanoseconds: Int
    /// How long the guest had been running.
    package var vmClockNanoseconds = 0
    /// The guest's count of instructions, where there is one.
    package var instructionCount: UInt64?

    package init(_ time: WallClock) {
        seconds = time.seconds
        nanoseconds = time.nanoseconds
    }
}

/// Can describe its image to users.
package protocol ImageDescribing: BlockDriver {
    func describeImage() async throws(BlockError) -> ImageDescription
    /// The backing file that the image names, as it stands there; answered without I/O.
    var backingName: String? { get }
}

extension ImageDescribing {
    package var backingName: String? { nil }
}

/// What a format says about an image, beyond size and file name.
package struct ImageDescription: Sendable {
    package var clusterSize: Int?
    package var isEncrypted = false
    package var hasCompressedClusters: Bool?
    /// The image was not closed properly.
    package var isDirty: Bool?
    /// As stored in the image.
    package var backingFileName: String?
    /// Otherwise the name shows U+FFFD for bytes that are something else, and must not be opened.
    package var isBackingFileNameUTF8 = true
    package var backingFormat: String?
    /// The format-specific part of `ImageInfo`.
    package var specific: ImageInfoSpecific?
    /// The snapshots inside the image, in its own order.
    package var snapshots: [SnapshotInfo] = []
    package init() {}
}
