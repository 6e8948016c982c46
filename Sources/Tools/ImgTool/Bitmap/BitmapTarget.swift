import BlockGraph
import StrataBase
import ToolSupport

/// The bitmap that `bitmap` changes.
struct BitmapTarget {
    let name: String
    /// Bytes for each bit of a new bitmap; nil for what suits the image.
    let granularity: Int?
    let node: BlockNode
    /// Where bitmaps to be merged are.
    let source: BlockNode
    let graph: BlockGraph

    /// Does one after the other. What was done before one that fails stays done.
    func run(_ actions: [BitmapAction]) async throws(ToolFailure) {
        let change: BitmapChange
        do throws(BlockError) { change = try await graph.beginBitmapChange(of: [node.name]) } catch { throw ToolFailure(nil, error) }
        var failure: ToolFailure?
        for action in actions {
            do throws(BlockError) { try await run(action) } catch {
                failure = ToolFailure("Operation \(action.name) on bitmap \(name) failed", error)
                break
            }
        }
        await graph.end(change)
        if let failure { throw failure }
    }

    private func run(_ action: BitmapAction) async throws(BlockError) {
        switch action {
        case .add: try await graph.addBitmap(named: name, to: node.name, granularity: granularity, isPersistent: true)
        case .remove: try await graph.deleteBitmap(try await find([.busy, .readOnly]), of: node.name)
        case .clear: _ = try await find(.all).clearAll()
        case .enable: try await find(.forReading).enable()
        case .disable: try await find(.forReading).disable()
        case .merge(let other):
            let target = try await find(.all)
            let found = try await graph.bitmap(named: other, of: source.name).bitmap
            try found.check(.forReading)
            try target.merge(found.bits)
        }
    }

    private func find(_ obstacles: DirtyBitmap.Obstacles) async throws(BlockError) -> DirtyBitmap {
        let bitmap = try await graph.bitmap(named: name, of: node.name).bitmap
        try bitmap.check(obstacles)
        return bitmap
    }
}
