import BlockGraph
import IOCore
import StorageSchema
import StrataBase

/// Puts an overlay on top of a node; undone by taking it off again.
final class SnapshotStep: TransactionStep {
    private let service: StorageService
    private let node: String
    private let overlay: String
    private var taken: TakenSnapshot?

    init(_ service: StorageService, node: String, overlay: String) {
        self.service = service
        self.node = node
        self.overlay = overlay
    }

    var nodesToDrain: Set<String> { [node] }

    func prepare() async throws(BlockError) { taken = try await service.graph.takeSnapshot(of: node, overlay: overlay) }

    func abort() async {
        guard let taken else { return }
        do throws(BlockError) { try await service.graph.undo(taken) } catch { StandardStreams.warn("Taking overlay '\(overlay)' off again: \(error)") }
    }
}

/// Makes an overlay and puts it on top of a node; undone by removing both the node and a file that was made for it.
final class SnapshotSyncStep: TransactionStep {
    private let service: StorageService
    private let arguments: BlockdevSnapshotSync
    private var made: MadeOverlay?

    init(_ service: StorageService, _ arguments: BlockdevSnapshotSync) {
        self.service = service
        self.arguments = arguments
    }

    var nodesToDrain: Set<String> { arguments.nodeName.map { [$0] } ?? [] }

    func prepare() async throws(BlockError) { made = try await service.makeOverlay(arguments) }

    func abort() async {
        guard let made else { return }
        do throws(BlockError) {
            try await service.graph.undo(made.taken)
            if let path = made.newFile { try HostFile.remove(path) }
        } catch { StandardStreams.warn("Taking overlay '\(made.taken.overlay)' off again: \(error)") }
    }
}

/// Keeps what a disk is inside its image; undone by removing it there.
final class InternalSnapshotStep: TransactionStep {
    private let service: StorageService
    private let arguments: BlockdevSnapshotInternal
    private var made: SnapshotInfo?

    init(_ service: StorageService, _ arguments: BlockdevSnapshotInternal) {
        self.service = service
        self.arguments = arguments
    }

    var nodesToDrain: Set<String> { [arguments.device] }

    func prepare() async throws(BlockError) { made = try await service.createInternalSnapshot(device: arguments.device, name: arguments.name) }

    func abort() async {
        guard let made else { return }
        do throws(BlockError) {
            _ = try await service.graph.deleteSnapshot(on: arguments.device, SnapshotSelector(id: made.id, name: made.name))
        } catch { StandardStreams.warn("Removing snapshot '\(made.name)' again: \(error)") }
    }
}

/// An overlay that came into being with its snapshot.
struct MadeOverlay: Sendable {
    let taken: TakenSnapshot
    /// The file, if it was not there before.
    let newFile: String?
}
