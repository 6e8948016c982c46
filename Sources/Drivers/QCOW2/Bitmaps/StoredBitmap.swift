import StrataBase

/// A bitmap as the image's directory has it. Source: docs/interop/qcow2, "Bitmap directory" and "Bitmap table". Big-endian; eight bytes aligned.
struct StoredBitmap: Hashable, Sendable {
    static let fixedSize = 24

    struct Flags: OptionSet, Hashable, Sendable {
        let rawValue: UInt32
        /// Whoever had the image open last has not stored the bitmap: it may lack writes.
        static let inUse = Flags(rawValue: 1 << 0)
        /// Writes are noted in it whenever the image is open for writing.
        static let auto = Flags(rawValue: 1 << 1)
        /// Programs that do not know the extra data may use the bitmap all the same.
        static let extraDataCompatible = Flags(rawValue: 1 << 2)
        static let known: Flags = [.inUse, .auto, .extraDataCompatible]
    }

    /// The only type that there is: writes are noted.
    static let dirtyTracking: UInt8 = 1
    static let granularityBits: ClosedRange<UInt8> = 9...31
    static let maximumNameSize = 1023
    static let maximumCount = 65535
    /// Of the whole directory, in bytes: as QEMU limits it.
    static let maximumDirectorySize = 1024 * maximumCount
    /// Of one bitmap's bits, in bytes: as QEMU limits them.
    static let maximumDataSize = 512 << 20

    var tableOffset: Int
    /// The bitmap table: for each cluster of bits where it lies, or 0 for clear bits, or 1 for set bits. Empty while the table has not been read.
    var table: [UInt64] = []
    /// Entries of the table.
    var tableSize: Int
    /// The table makes no sense: it was not read, and nothing says which clusters are the bitmap's.
    var isDamaged = false
    var flags: Flags
    let granularityBits: UInt8
    /// UTF-8, as it stands there.
    let nameBytes: [UInt8]
    let extraData: [UInt8]

    /// What counts of the name: the bytes before a NUL, as in QEMU.
    fileprivate var nameInForce: ArraySlice<UInt8> { nameBytes.prefix { $0 != 0 } }
    var name: String { String(decoding: nameInForce, as: UTF8.self) }
    /// Bytes, with the padding to eight.
    var encodedSize: Int { (Self.fixedSize + extraData.count + nameBytes.count).roundedUp(to: 8) }

    /// What makes one directory's entries lie where another's do.
    var layout: [[UInt8]] { [nameBytes, extraData] }

    // MARK: Table entries

    static let allSet: UInt64 = 1
    /// Where no table is: the last place that a directory can name, on a cluster of any size. No file is that long.
    static let nowhere = 0x00ff_ffff_ffe0_0000
    static let offsetMask: UInt64 = 0x00ff_ffff_ffff_fe00

    /// How many table entries the bits of a disk take.
    static func tableSize(bitCount: Int, clusterSize: Int) -> Int {
        max(1, bitCount.dividedRoundingUp(by: 8 * clusterSize))
    }

    // MARK: Bytes

    init(name: String, granularity: Int, flags: Flags, tableOffset: Int, table: [UInt64]) {
        nameBytes = Array(name.utf8)
        granularityBits = UInt8(granularity.trailingZeroBitCount)
        self.flags = flags
        self.tableOffset = tableOffset
        self.table = table
        tableSize = table.count
        extraData = []
    }

    /// Decodes the entry at `start`.
    /// - Throws: what is wrong with it, as text that follows the name of the thing.
    init(decoding bytes: RawSpan, at start: Int, _ geometry: ClusterGeometry) throws(DecodingFailure) {
        let offset: UInt64 = try bytes.bigEndian(at: start)
        let entries = Int(try bytes.bigEndian(at: start + 8, as: UInt32.self))
        flags = Flags(rawValue: try bytes.bigEndian(at: start + 12))
        let type: UInt8 = try bytes.bigEndian(at: start + 16)
        granularityBits = try bytes.bigEndian(at: start + 17)
        let nameSize = Int(try bytes.bigEndian(at: start + 18, as: UInt16.self))
        let extraSize = Int(try bytes.bigEndian(at: start + 20, as: UInt32.self))
        let end = start + Self.fixedSize + extraSize + nameSize
        guard end <= bytes.byteCount else { throw .truncated(needed: end, available: bytes.byteCount) }
        guard (1...Self.maximumNameSize).contains(nameSize) else { throw .invalid("a bitmap's name has \(nameSize) bytes") }
        extraData = Self.copy(bytes, start + Self.fixedSize, extraSize)
        nameBytes = Self.copy(bytes, start + Self.fixedSize + extraSize, nameSize)
        tableSize = entries
        tableOffset = Int(truncatingIfNeeded: offset)
        let name = name
        guard type == Self.dirtyTracking else { throw .invalid("bitmap '\(name)' is of the unknown type \(type)") }
        guard flags.isSubset(of: .known) else { throw .invalid("bitmap '\(name)' has unknown flags: 0x\(String(flags.rawValue, radix: 16))") }
        guard extraData.isEmpty || flags.contains(.extraDataCompatible) else { throw .invalid("Bitmap extra data is not supported: bitmap '\(name)'") }
        guard Self.granularityBits.contains(granularityBits), entries > 0, offset != 0, offset & ~Self.offsetMask == 0,
            tableOffset.isAligned(to: geometry.clusterSize), entries <= Self.maximumDataSize >> geometry.clusterBits
        else { throw .invalid("Bitmap '\(name)' doesn't satisfy the constraints") }
    }

    private static func copy(_ bytes: RawSpan, _ start: Int, _ count: Int) -> [UInt8] {
        var copy: [UInt8] = []
        copy.reserveCapacity(count)
        for position in start..<start + count { copy.append(bytes.checkedBigEndian(at: position)) }
        return copy
    }

    /// The entry as it goes to disk.
    func encoded() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: encodedSize)
        bytes.setBigEndian(UInt64(tableOffset), at: 0)
        bytes.setBigEndian(UInt32(tableSize), at: 8)
        bytes.setBigEndian(flags.rawValue, at: 12)
        bytes[16] = Self.dirtyTracking
        bytes[17] = granularityBits
        bytes.setBigEndian(UInt16(nameBytes.count), at: 18)
        bytes.setBigEndian(UInt32(extraData.count), at: 20)
        bytes.replaceSubrange(Self.fixedSize..<Self.fixedSize + extraData.count + nameBytes.count, with: extraData + nameBytes)
        return bytes
    }
}

extension [StoredBitmap] {
    /// The directory as it goes to disk.
    /// - Parameter inUse: whether all are in use, whatever they say themselves; nil leaves that to them.
    func encodedDirectory(inUse: Bool? = nil) -> [UInt8] {
        flatMap { entry in
            var entry = entry
            if inUse == true { entry.flags.insert(.inUse) }
            return entry.encoded()
        }
    }

    var encodedSize: Int { reduce(0) { $0 + $1.encodedSize } }

    /// Decodes `count` entries that fill the bytes.
    init(decoding bytes: RawSpan, count: Int, _ geometry: ClusterGeometry) throws(DecodingFailure) {
        self = []
        var position = 0
        var names: Set<ArraySlice<UInt8>> = []
        for _ in 0..<count {
            let entry = try StoredBitmap(decoding: bytes, at: position, geometry)
            guard names.insert(entry.nameInForce).inserted else { throw .invalid("two bitmaps are called '\(entry.name)'") }
            position += entry.encodedSize
            append(entry)
        }
        guard position == bytes.byteCount else {
            throw .invalid("its \(count) entries take \(position) bytes and not \(bytes.byteCount)")
        }
    }
}
