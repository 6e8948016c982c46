/// Every driver of the catalogue, one row or more each. `CatalogTests` fails for a driver that is missing here.
///
/// A row's definition stands in a file of its own beside this one.
enum DriverTable {
    /// Drivers of disks that cannot be written to, which these suites do not fit: suites of their own hold them to account.
    /// snapshot-access: Tests/BlockCopyTests/SnapshotTests.swift; the images of other programs: Tests/ReadOnlyFormatsTests.
    static let readOnly: Set = ["snapshot-access", "vdi", "vhdx", "vmdk", "vpc"]

    static let rows: [DriverUnderTest] = [
        .blkdebug,
        .blkdebugAligned,
        .blklogwrites,
        .blklogwritesInLargeSectors,
        .blkverify,
        .compress,
        .copyBeforeWrite,
        .copyBeforeWriteNothing,
        .copyOnRead,
        .copyOnReadOverChain,
        .file,
        .fileDirect,
        .nbd,
        .hostDevice,
        .hostDeviceDirect,
        .luks,
        .nullAio,
        .nullCo,
        .preallocate,
        .preallocateSmall,
        .qcow2,
        .qcow2Encrypted,
        .qcow2OverBacking,
        .qcow2WithDataFile,
        .qcow2WithRawDataFile,
        .qcow2WithSubclusters,
        .quorum,
        .quorumReadingFirst,
        .quorumRewriting,
        .raw,
        .rawWindow,
        .throttle,
        .throttleLimited,
    ]
}
