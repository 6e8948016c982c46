import StrataBase

/// What keeps a step on the image's state from being taken now. Steps are synchronous functions under a `Mutex`; where one needs something
/// that takes I/O or waiting, it changes nothing and names it. `QCOW2Driver.remove(_:)` gets it out of the way and the step starts over.
enum Obstacle: Error, Hashable, Sendable {
    /// This slice of the mapping is not in memory.
    case l2Slice(Int)
    /// The L1 entry has no L2 table that may be changed.
    case l2Table(l1Index: Int)
    /// Every L2 slot is dirty: something must be written back.
    case l2CacheFull
    /// This refcount block is not in memory.
    case refcountBlock(Int)
    case refcountCacheFull
    /// The refcount table is too short for this block index.
    case refcountTable(blockIndex: Int)
    /// The file must be at least this long, in bytes.
    case fileLength(Int)
    /// Another request is allocating there.
    case reservation(ReservationID)
    /// The image contradicts itself.
    case corrupt(Contradiction)
}

/// Metadata that cannot be true. The message goes to the user and, for a writable image, the corrupt bit to the header.
enum Contradiction: Hashable, Sendable {
    case l1Entry(index: Int, bits: UInt64)
    case l2Entry(guest: GuestOffset, bits: UInt64)
    case refcountTableEntry(index: Int, value: UInt64)
    case refcountUnderflow(HostOffset)
    /// A guest cluster or a free cluster that is also metadata.
    case overlapsMetadata(HostOffset, MetadataKind)

    var message: String {
        switch self {
        case .l1Entry(let index, let bits): "L1 entry \(index) is invalid: 0x\(String(bits, radix: 16))"
        case .l2Entry(let guest, let bits): "L2 entry for guest offset \(guest) is invalid: 0x\(String(bits, radix: 16))"
        case .refcountTableEntry(let index, let value): "Refcount table entry \(index) is invalid: 0x\(String(value, radix: 16))"
        case .refcountUnderflow(let host): "Host cluster at \(host) is freed but its refcount is zero"
        case .overlapsMetadata(_, let kind): "Preventing invalid write on metadata (overlaps with \(kind.name))"
        }
    }

    /// Where it is in the file, as far as that can be said.
    var offset: HostOffset? {
        switch self {
        case .overlapsMetadata(let host, _), .refcountUnderflow(let host): host
        case .l1Entry, .l2Entry, .refcountTableEntry: nil
        }
    }
}
