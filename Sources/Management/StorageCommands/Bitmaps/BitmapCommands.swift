import BlockGraph
package import StorageSchema
import StrataBase

// Each is the action of the same name by itself.

extension StorageService {
    /// Gives a node a dirty bitmap.
    package func blockDirtyBitmapAdd(_ arguments: BlockDirtyBitmapAdd) async throws { try await run([AddBitmapStep(graph, arguments)]) }

    /// Removes a dirty bitmap, from the image too.
    package func blockDirtyBitmapRemove(_ arguments: BlockDirtyBitmap) async throws { try await run([RemoveBitmapStep(graph, arguments)]) }

    /// Clears all bits.
    package func blockDirtyBitmapClear(_ arguments: BlockDirtyBitmap) async throws { try await run([ClearBitmapStep(graph, arguments)]) }

    /// Has writes noted from now on.
    package func blockDirtyBitmapEnable(_ arguments: BlockDirtyBitmap) async throws {
        try await run([RecordingStep(graph, arguments, isRecording: true)])
    }

    /// Has nothing noted from now on.
    package func blockDirtyBitmapDisable(_ arguments: BlockDirtyBitmap) async throws {
        try await run([RecordingStep(graph, arguments, isRecording: false)])
    }

    /// Sets the bits that other bitmaps have.
    package func blockDirtyBitmapMerge(_ arguments: BlockDirtyBitmapMerge) async throws { try await run([MergeBitmapsStep(graph, arguments)]) }

    /// The digest of a bitmap's bits.
    package func xDebugBlockDirtyBitmapSha256(_ arguments: BlockDirtyBitmap) async throws -> BlockDirtyBitmapSha256 {
        BlockDirtyBitmapSha256(sha256: try await graph.bitmap(named: arguments.name, of: arguments.node).bitmap.bits.sha256)
    }
}
