import StrataBase

/// Something that gives clients outside the process access to a node: an NBD export, for instance.
///
/// Life: an export is made ready to serve, added to a `BlockExportRegistry`, serves, is shut down once, and is removed. All types share this;
/// what differs is how clients reach it.
package protocol BlockExport: AnyObject, Sendable {
    /// The name of the type in QMP: "nbd".
    static var typeName: String { get }

    /// Chosen by the user, unique among all exports.
    var id: String { get }

    /// The node whose content clients see.
    var nodeName: String { get }

    /// Whether clients are using the export at the moment.
    var isInUse: Bool { get }

    /// Disconnects clients, finishes the requests that have begun, and lets go of the node. Returns when nothing is used any longer.
    /// Called once.
    func shutDown() async
}

/// How an export is removed that clients may be using. The names are QMP's (`BlockExportRemoveMode`).
package enum ExportRemovalMode: String, Sendable, Hashable {
    /// Refuse while clients are connected.
    case safe
    /// Disconnect them.
    case hard
}

/// What `query-block-exports` tells about an export.
package struct ExportSummary: Sendable, Hashable {
    package var id: String
    package var typeName: String
    package var nodeName: String
    package var isShuttingDown: Bool
}
