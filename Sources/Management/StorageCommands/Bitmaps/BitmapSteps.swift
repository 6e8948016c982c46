import BlockGraph
import IOCore
import StorageSchema
import StrataBase

/// What is common to actions on one bitmap.
class BitmapStep: TransactionStep {
    let graph: BlockGraph
    let nodeName: String
    let bitmapName: String
    final var bitmap: DirtyBitmap?

    init(_ graph: BlockGraph, node: String, name: String) {
        self.graph = graph
        nodeName = node
        bitmapName = name
    }

    final var nodesToDrain: Set<String> { [nodeName] }

    func nodesWithStoredBitmaps(_ service: StorageService) async -> Set<String> {
        await graph.node(named: nodeName)?.bitmaps.bitmap(named: bitmapName)?.isPersistent == true ? [nodeName] : []
    }

    /// Looks the bitmap up.
    /// - Throws: that there is none, or what stands in the way of using it.
    final func find(_ obstacles: DirtyBitmap.Obstacles) async throws(BlockError) -> DirtyBitmap {
        let found = try await graph.bitmap(named: bitmapName, of: nodeName).bitmap
        try found.check(obstacles)
        bitmap = found
        return found
    }

    func prepare() async throws(BlockError) { preconditionFailure("each action has its own") }
    func commit() async {}
    func abort() async {}
}

final class AddBitmapStep: BitmapStep {
    private let arguments: BlockDirtyBitmapAdd

    init(_ graph: BlockGraph, _ arguments: BlockDirtyBitmapAdd) {
        self.arguments = arguments
        super.init(graph, node: arguments.node, name: arguments.name)
    }

    override func nodesWithStoredBitmaps(_ service: StorageService) async -> Set<String> { arguments.persistent == true ? [nodeName] : [] }

    override func prepare() async throws(BlockError) {
        bitmap = try await graph.addBitmap(
            named: bitmapName, to: nodeName, granularity: arguments.granularity.map { Int($0) }, isPersistent: arguments.persistent ?? false,
            isEnabled: arguments.disabled != true)
    }

    override func abort() async { if let bitmap { await graph.removeBitmap(bitmap, from: nodeName) } }
}

/// Until the transaction is committed the bitmap stays, used by nobody, under its name.
final class RemoveBitmapStep: BitmapStep {
    init(_ graph: BlockGraph, _ arguments: BlockDirtyBitmap) { super.init(graph, node: arguments.node, name: arguments.name) }

    override func prepare() async throws(BlockError) {
        let bitmap = try await find([.busy, .readOnly])
        bitmap.setRetired(true)
        bitmap.setBusy(true)
    }

    override func commit() async {
        guard let bitmap else { return }
        do throws(BlockError) { try await graph.deleteBitmap(bitmap, of: nodeName) } catch {
            StandardStreams.warn("Removing bitmap '\(bitmapName)' from its image: \(error)")
            // It stays in the image, marked as in use, where it can be removed another time.
            await graph.removeBitmap(bitmap, from: nodeName)
        }
    }

    override func abort() async {
        bitmap?.setRetired(false)
        bitmap?.setBusy(false)
    }
}

final class ClearBitmapStep: BitmapStep {
    private var old: HierarchicalBitmap?

    init(_ graph: BlockGraph, _ arguments: BlockDirtyBitmap) { super.init(graph, node: arguments.node, name: arguments.name) }

    override func prepare() async throws(BlockError) { old = try await find(.all).clearAll() }
    override func abort() async { if let old { bitmap?.restore(old) } }
}

final class RecordingStep: BitmapStep {
    private let isRecording: Bool
    private var wasRecording = false

    init(_ graph: BlockGraph, _ arguments: BlockDirtyBitmap, isRecording: Bool) {
        self.isRecording = isRecording
        super.init(graph, node: arguments.node, name: arguments.name)
    }

    override func prepare() async throws(BlockError) {
        let bitmap = try await find(.forReading)
        wasRecording = bitmap.isRecording
        set(isRecording)
    }

    override func abort() async { set(wasRecording) }

    private func set(_ isRecording: Bool) { if isRecording { bitmap?.enable() } else { bitmap?.disable() } }
}

final class MergeBitmapsStep: BitmapStep {
    private let sources: [(node: String, name: String)]
    private var old: HierarchicalBitmap?

    init(_ graph: BlockGraph, _ arguments: BlockDirtyBitmapMerge) {
        sources = arguments.bitmaps.map { source in
            switch source {
            case .local(let name): (arguments.node, name)
            case .external(let other): (other.node, other.name)
            }
        }
        super.init(graph, node: arguments.node, name: arguments.target)
    }

    override func prepare() async throws(BlockError) {
        let target = try await find([])
        // All of them are looked at before the first is merged. In QEMU's order: a source that is not there comes before a target that cannot be merged into.
        var bits: [HierarchicalBitmap] = []
        let size = target.byteCount
        for source in sources {
            let found = try await graph.bitmap(named: source.name, of: source.node).bitmap
            try target.check(.all)
            try found.check(.forReading)
            let copy = found.bits
            guard copy.byteCount == size else {
                throw BlockError(
                    .invalidArgument,
                    "Bitmaps are of different sizes (destination size is \(size), source size is \(copy.byteCount)) and can't be merged")
            }
            bits.append(copy)
        }
        let before = target.bits
        for source in bits { try target.merge(source) }
        old = before
    }

    override func abort() async { if let old { bitmap?.restore(old) } }
}
