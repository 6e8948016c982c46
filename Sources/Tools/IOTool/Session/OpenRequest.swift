import BlockGraph
import IOCore
import QAPIRuntime
import StrataBase
import ToolSupport

/// How an image is to be opened: what the tool's own options and those of the `open` command have in common.
struct OpenRequest: Sendable {
    var isReadOnly = false
    /// Writes go to a temporary overlay, which is gone when the image is closed.
    var isSnapshot = false
    var copiesOnRead = false
    var forceShare = false
    var cache = CacheMode.writeback
    var aio: String?
    /// Whether discards reach the file.
    var unmaps = true
    var format: String?
    /// Whether the name is a list of options.
    var isOptions = false
    /// Options of the block driver, which win over the rest.
    var options = JSONObject()

    mutating func setCache(_ word: String) throws(CommandFailure) {
        guard let mode = CacheMode(word) else { throw .reported("Invalid cache option: \(word)") }
        cache = mode
    }

    mutating func setDiscard(_ word: String) throws(CommandFailure) {
        switch word {
        case "off", "ignore": unmaps = false
        case "on", "unmap": unmaps = true
        default: throw .reported("Invalid discard option: \(word)")
        }
    }

    mutating func setAIO(_ word: String) throws(CommandFailure) {
        guard ["threads", "native", "io_uring"].contains(word) else { throw .reported("Invalid aio option: \(word)") }
        // Native access that was asked for once is not taken back by another wish.
        if aio != "native" { aio = word }
    }

    mutating func addOptions(_ text: String) throws(CommandFailure) {
        do throws(QMPError) {
            options.merge(try KeyValueParser.parse(text, impliedKey: nil).object ?? JSONObject())
        } catch {
            throw .reported(error.message)
        }
    }

    /// The settings for an image that is opened as it is, without an overlay.
    private func settings(isReadOnly: Bool) -> ImageSettings {
        var settings = ImageSettings()
        settings.isReadOnly = isReadOnly
        settings.cache = cache
        settings.forceShare = forceShare
        settings.aio = aio
        settings.unmaps = unmaps
        settings.resizes = true
        return settings
    }

    /// Opens the image.
    /// - Parameter name: as the user wrote it; nil when the options say everything.
    /// - Throws: what is wrong, without the image's name in front.
    func open(_ name: String?, in session: ImageSession) async throws(BlockError) -> OpenImage {
        var reference: ImageReference
        if let name {
            reference =
                isOptions
                ? try ImageReference(imageOptions: name)
                : options.isEmpty ? try ImageReference(named: name, format: format) : try ImageReference(named: name, refinedBy: options)
        } else {
            reference = try ImageReference(options: options)
        }
        var isReadOnly = isReadOnly
        switch reference.options["read-only"] {
        case true, "on":
            if !isReadOnly { throw BlockError(.readOnly, "Block node is read-only") }
        case false, "off": isReadOnly = false
        default: break
        }
        let settings = settings(isReadOnly: isReadOnly)
        if copiesOnRead {
            if isReadOnly { throw BlockError(.invalidArgument, "Can't use copy-on-read on read-only device") }
            // Copies in an overlay that goes away are of no use to anybody.
            if !isSnapshot { try await wrap(&reference, settings, in: session, as: "copy-on-read") }
        }
        if isSnapshot, !isReadOnly { return try await TemporaryOverlay.open(over: reference, settings, in: session) }
        return try await session.open(reference, settings)
    }

    /// Puts a filter above the image, whose format has to be known for that.
    private func wrap(
        _ reference: inout ImageReference, _ settings: ImageSettings, in session: ImageSession, as filter: String
    ) async throws(BlockError) {
        let inner = try await session.withKnownFormat(reference, settings)
        var options = JSONObject()
        options["driver"] = .string(filter)
        options["file"] = .object(inner)
        reference.options = options
    }
}
