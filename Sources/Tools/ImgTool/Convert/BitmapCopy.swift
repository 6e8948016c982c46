import BlockGraph
import IOCore
import StrataBase
import ToolSupport

/// Copies the bitmaps that an image keeps into another one (`convert --bitmaps`).
struct BitmapCopy {
    private let bitmaps: [DirtyBitmap]

    /// - Parameter skipsBroken: leave out bitmaps of which nobody knows what they would say, with a warning.
    init(of source: BlockNode, skipsBroken: Bool) throws(ToolFailure) {
        guard let driver = source.driver as? any BitmapPersisting, driver.canStoreBitmaps else { throw ToolFailure("Source lacks bitmap support") }
        var bitmaps: [DirtyBitmap] = []
        // A driver stores the newest first: so the order stays what it is.
        for bitmap in source.bitmaps.named.reversed() where bitmap.isPersistent {
            guard bitmap.isInconsistent else {
                bitmaps.append(bitmap)
                continue
            }
            guard skipsBroken else {
                throw ToolFailure(
                    "Cannot copy inconsistent bitmap '\(bitmap.name ?? "")'", advice: ["Try --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it"])
            }
            StandardStreams.warn("Skipping inconsistent bitmap '\(bitmap.name ?? "")'")
        }
        self.bitmaps = bitmaps
    }

    /// To be called when the data is there: no bitmap shall record that.
    func copy(to target: BlockNode, in graph: BlockGraph) async throws(ToolFailure) {
        let change: BitmapChange
        do throws(BlockError) { change = try await graph.beginBitmapChange(of: [target.name]) } catch { throw ToolFailure(nil, error) }
        var failure: ToolFailure?
        for bitmap in bitmaps {
            do throws(ToolFailure) { try await copy(bitmap, to: target, in: graph) } catch {
                failure = error
                break
            }
        }
        await graph.end(change)
        if let failure { throw failure }
    }

    private func copy(_ bitmap: DirtyBitmap, to target: BlockNode, in graph: BlockGraph) async throws(ToolFailure) {
        let name = bitmap.name ?? ""
        let copy: DirtyBitmap
        do throws(BlockError) {
            copy = try await graph.addBitmap(named: name, to: target.name, granularity: bitmap.granularity, isPersistent: true, isEnabled: bitmap.isRecording)
        } catch { throw ToolFailure("Failed to create bitmap \(name)", error) }
        do throws(BlockError) { try copy.merge(bitmap.bits) } catch {
            let failure = ToolFailure("Failed to populate bitmap \(name)", error)
            // An empty one would say that nothing has changed.
            do throws(BlockError) { try await graph.deleteBitmap(copy, of: target.name) } catch { throw ToolFailure("\(failure.message); it is left empty", error) }
            throw failure
        }
    }
}
