import StorageSchema

/// What a host cluster of the image's own holds: which check forbids to write guest data there, by the names of the option `overlap-check`.
struct MetadataKind: OptionSet, Hashable, Sendable {
    let rawValue: Int32

    static let mainHeader = MetadataKind(rawValue: 1 << 0)
    static let activeL1 = MetadataKind(rawValue: 1 << 1)
    static let activeL2 = MetadataKind(rawValue: 1 << 2)
    static let refcountTable = MetadataKind(rawValue: 1 << 3)
    static let refcountBlock = MetadataKind(rawValue: 1 << 4)
    static let snapshotTable = MetadataKind(rawValue: 1 << 5)
    static let inactiveL1 = MetadataKind(rawValue: 1 << 6)
    static let inactiveL2 = MetadataKind(rawValue: 1 << 7)
    static let bitmapDirectory = MetadataKind(rawValue: 1 << 8)

    static let constant: MetadataKind = [.mainHeader, .activeL1, .refcountTable, .snapshotTable, .bitmapDirectory]
    static let cached: MetadataKind = constant.union([.activeL2, .refcountBlock, .inactiveL1])
    static let all: MetadataKind = cached.union(.inactiveL2)
    /// What the image's own bookkeeping keeps track of, whatever is checked.
    static let tracked: MetadataKind = constant.subtracting(.bitmapDirectory).union([.activeL2, .refcountBlock])

    /// QEMU's words.
    var name: String {
        switch self {
        case .mainHeader: "qcow2_header"
        case .activeL1: "active L1 table"
        case .activeL2: "active L2 table"
        case .refcountTable: "refcount table"
        case .refcountBlock: "refcount block"
        case .snapshotTable: "snapshot table"
        case .inactiveL1: "inactive L1 table"
        case .inactiveL2: "inactive L2 table"
        case .bitmapDirectory: "bitmap directory"
        default: "metadata"
        }
    }

    private static func of(_ mode: Qcow2OverlapCheckMode) -> MetadataKind {
        switch mode {
        case .none: []
        case .constant: .constant
        case .cached: .cached
        case .all: .all
        }
    }

    /// What an image's options ask for; by default what needs no reading of metadata.
    init(_ checks: Qcow2OverlapChecks?) {
        switch checks {
        case nil: self = .cached
        case .mode(let mode): self = Self.of(mode)
        case .flags(let flags):
            var kinds = Self.of(flags.template ?? .cached)
            let choices: [(MetadataKind, Bool?)] = [
                (.mainHeader, flags.mainHeader), (.activeL1, flags.activeL1), (.activeL2, flags.activeL2), (.refcountTable, flags.refcountTable),
                (.refcountBlock, flags.refcountBlock), (.snapshotTable, flags.snapshotTable), (.inactiveL1, flags.inactiveL1),
                (.inactiveL2, flags.inactiveL2), (.bitmapDirectory, flags.bitmapDirectory),
            ]
            for (kind, choice) in choices {
                if let choice { if choice { kinds.insert(kind) } else { kinds.remove(kind) } }
            }
            self = kinds
        }
    }

    init(rawValue: Int32) { self.rawValue = rawValue }
}
