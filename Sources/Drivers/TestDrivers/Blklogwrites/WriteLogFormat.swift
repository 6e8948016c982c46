import StrataBase

// The log of Linux's dm-log-writes. Source: the kernel's Documentation/admin-guide/device-mapper/log-writes.rst and the structures that it names.
// Everything is little-endian and counts in sectors of the log's own size. Sector 0 is the superblock; then each entry takes one sector, and
// its data, if it has any, the sectors behind it.

/// The first sector of a log. 28 bytes; the rest of the sector is zero.
struct WriteLogSuperblock: Hashable {
    static let magic: UInt64 = 0x6a73_6677_7368_72
    static let version: UInt64 = 1
    static let encodedSize = 28

    var entryCount: UInt64
    /// Bytes.
    var sectorSize: UInt32

    init(entryCount: UInt64, sectorSize: UInt32) {
        self.entryCount = entryCount
        self.sectorSize = sectorSize
    }

    /// - Parameter bytes: at least `encodedSize` of them.
    /// - Throws: `.corruptImage` for what is no log of this version.
    init(decoding bytes: RawSpan) throws(BlockError) {
        guard bytes.checkedLittleEndian(at: 0, as: UInt64.self) == Self.magic else { throw BlockError(.corruptImage, "Invalid log superblock magic") }
        let version = bytes.checkedLittleEndian(at: 8, as: UInt64.self)
        guard version == Self.version else { throw BlockError(.unsupported, "Unsupported log version \(version)") }
        entryCount = bytes.checkedLittleEndian(at: 16)
        sectorSize = bytes.checkedLittleEndian(at: 24)
        try WriteLogSectors.check(sectorSize: sectorSize)
    }

    /// - Precondition: `bytes` begin with zeroes as far as this does not write.
    func encode(into bytes: inout MutableRawSpan) {
        bytes.setLittleEndian(Self.magic, at: 0)
        bytes.setLittleEndian(Self.version, at: 8)
        bytes.setLittleEndian(entryCount, at: 16)
        bytes.setLittleEndian(sectorSize, at: 24)
    }
}

/// One change. 32 bytes; the rest of its sector is zero.
struct WriteLogEntry: Hashable {
    static let encodedSize = 32

    struct Flags: OptionSet, Hashable {
        let rawValue: UInt64
        static let flush = Flags(rawValue: 1 << 0)
        /// Without data, whatever `sectorCount` says.
        static let discard = Flags(rawValue: 1 << 2)
    }

    var sector: UInt64
    var sectorCount: UInt64
    var flags: Flags

    init(sector: UInt64, sectorCount: UInt64, flags: Flags) {
        self.sector = sector
        self.sectorCount = sectorCount
        self.flags = flags
    }

    /// - Parameter bytes: at least `encodedSize` of them.
    init(decoding bytes: RawSpan) {
        sector = bytes.checkedLittleEndian(at: 0)
        sectorCount = bytes.checkedLittleEndian(at: 8)
        flags = Flags(rawValue: bytes.checkedLittleEndian(at: 16))
    }

    func encode(into bytes: inout MutableRawSpan) {
        bytes.setLittleEndian(sector, at: 0)
        bytes.setLittleEndian(sectorCount, at: 8)
        bytes.setLittleEndian(flags.rawValue, at: 16)
        // The length of private data, which only marks have.
        bytes.setLittleEndian(UInt64(0), at: 24)
    }

    /// How many sectors lie between the entry's own and the next entry.
    var dataSectors: UInt64 { flags.contains(.discard) ? 0 : sectorCount }
}

enum WriteLogSectors {
    /// Bytes. An entry has to fit into one, and QEMU stops at 8 MiB.
    static let sizes = 32...(8 << 20)

    static func check(sectorSize: UInt32) throws(BlockError) {
        guard sizes.contains(Int(sectorSize)), Int(sectorSize).isPowerOfTwo else { throw BlockError(.invalidArgument, "Invalid log sector size \(sectorSize)") }
    }
}
