import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import Synchronization
import ToolSupport

/// Which snapshot of an image a text means.
enum SnapshotChoice {
    /// The snapshot with this ID, or else the first one of this name.
    static func byIDOrName(_ text: String, in snapshotting: any Snapshotting) async throws(BlockError) -> SnapshotSelector? {
        let all = try await snapshotting.listSnapshots()
        let found = all.first { $0.id == text } ?? all.first { $0.name == text }
        return found.map { SnapshotSelector(id: $0.id, name: $0.name) }
    }

    /// What `-l` of `convert` and `measure` means: `snapshot.id=ID,snapshot.name=NAME`, or an ID or a name.
    enum Wish: Sendable, Hashable {
        case options(id: String?, name: String?)
        case text(String)

        /// - Throws: a failure for an option that snapshots do not have.
        init(_ text: String) throws(ToolFailure) {
            guard text.hasPrefix("snapshot.") else {
                self = .text(text)
                return
            }
            let list = OptionList(parsing: text)
            if let wrong = list.elements.first(where: { !["snapshot.id", "snapshot.name"].contains($0.key) || $0.value == nil }) {
                let name = StandardStreams.programName.withLock { $0 }
                throw ToolFailure("Invalid parameter '\(wrong.key)'", advice: ["\(name): Failed in parsing snapshot param '\(text)'"])
            }
            self = .options(id: list["snapshot.id"], name: list["snapshot.name"])
        }
    }

    /// Has an image that was opened for reading show the snapshot.
    static func load(_ wish: Wish, of image: OpenImage, in session: ImageSession) async throws(ToolFailure) {
        do throws(BlockError) {
            guard let snapshotting = image.node.snapshotting else {
                throw BlockError(.unsupported, "Block format '\(image.node.formatName)' used by device '' does not support temporarily loading internal snapshots")
            }
            let selector: SnapshotSelector?
            switch wish {
            case .text(let text): selector = try await byIDOrName(text, in: snapshotting)
            case .options(let id, let name):
                let found = try await snapshotting.listSnapshots().first { (id == nil || $0.id == id) && (name == nil || $0.name == name) }
                selector = found.map { SnapshotSelector(id: $0.id, name: $0.name) }
            }
            guard let selector else { throw BlockError(.notFound, "Can't find snapshot") }
            try await session.graph.loadSnapshot(on: image.node.name, selector)
        } catch {
            throw ToolFailure("Failed to load snapshot", error)
        }
    }
}
