import BlockGraph
import IOCore
import QAPIRuntime
import QCOW2
import StorageSchema
package import StrataBase

/// An overlay that takes the writes of `--snapshot`: a file without a name, gone with the process.
package enum TemporaryOverlay {
    /// Opens an empty overlay over the image, which is itself opened for reading.
    package static func open(over reference: ImageReference, _ settings: ImageSettings, in session: ImageSession) async throws(BlockError) -> OpenImage {
        var below = settings
        below.isReadOnly = true
        below.resizes = false
        var backing = try await session.withKnownFormat(reference, below)
        let size = try await Self.size(of: backing, reference, below, in: session)
        backing["read-only"] = true
        let path = try HostFile.createTemporary(in: HostEnvironment["TMPDIR"] ?? "/var/tmp", prefix: "strata-overlay-")
        let image: OpenImage
        do throws(BlockError) {
            try await session.withEmptied(ImageReference(named: path, format: "file")) { file async throws(BlockError) in
                try await QCOW2Driver.create(BlockdevCreateOptionsQcow2(file: .reference(""), size: size), in: file)
            }
            var overlay = reference
            overlay.options = JSONObject()
            overlay.options["driver"] = "qcow2"
            overlay.options["file"] = ["driver": "file", "filename": .string(path)]
            overlay.options["backing"] = .object(backing)
            // Nobody else uses the overlay: what was said about others is about the image.
            var above = settings
            above.forceShare = false
            image = try await session.open(overlay, above)
        } catch {
            try? HostFile.remove(path)
            throw error
        }
        try HostFile.remove(path)
        return image
    }

    private static func size(
        of options: JSONObject, _ reference: ImageReference, _ settings: ImageSettings, in session: ImageSession
    ) async throws(BlockError) -> Int {
        var backing = reference
        backing.options = options
        let image = try await session.open(backing, settings)
        let size = image.node.length.roundedUp(to: 512)
        try await session.close(image)
        return size
    }
}
