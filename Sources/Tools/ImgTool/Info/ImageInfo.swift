import QAPIRuntime
import StorageSchema

/// What `info` says about one image: collected from open nodes, printed as text or as JSON.
struct ImageInfo {
    /// A node below the image, by the name of the edge to it.
    struct Child {
        let name: String
        let info: ImageInfo
    }

    struct Backing {
        /// As it stands in the image.
        let name: String
        /// Relative to where the image lies; nil when that cannot be told.
        let fullName: String?
        let format: String?
        /// Otherwise the name is only to be shown.
        var isUTF8 = true
    }

    var filename: String
    var format: String
    /// Whether the node is a protocol: a file rather than an image in a file.
    var isProtocol: Bool
    /// Bytes.
    var virtualSize: Int
    /// Bytes taken from the host's storage.
    var actualSize: Int?
    /// Bytes.
    var clusterSize: Int?
    var isEncrypted = false
    /// Whether it was not closed properly; nil where the format knows no such thing.
    var isDirty: Bool?
    var backing: Backing?
    var snapshots: [SnapshotInfo] = []
    /// Details only this format has, in the order to print them, with the names of the QMP schema; nil when the format has none to tell.
    var formatSpecific: JSONObject?
    var children: [Child] = []
}

/// A snapshot inside an image.
struct SnapshotInfo {
    var id: String
    var name: String
    /// Bytes.
    var stateSize: Int
    /// Since 1970, UTC.
    var dateSeconds: Int
    var dateNanoseconds: Int
    /// Guest time when it was taken.
    var clockNanoseconds: Int
    var instructionCount: Int?
}

extension SnapshotInfo {
    init(_ reported: StorageSchema.SnapshotInfo) {
        // The seconds come from a 64-bit count of nanoseconds: multiplying back cannot overflow.
        self.init(
            id: reported.id, name: reported.name, stateSize: reported.vmStateSize, dateSeconds: reported.dateSec,
            dateNanoseconds: reported.dateNsec, clockNanoseconds: reported.vmClockSec &* 1_000_000_000 &+ reported.vmClockNsec,
            instructionCount: reported.icount)
    }
}
