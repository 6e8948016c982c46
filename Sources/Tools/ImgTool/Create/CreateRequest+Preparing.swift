import BlockGraph
import StrataBase
import ToolSupport

// From a command line to a complete request, as `create` and `convert` do it.

extension CreateRequest {
    /// What the command line says about the image to be made.
    struct Wish {
        var filename: String
        var format = "raw"
        var options: [String] = []
        var backing: String?
        var backingFormat: String?
        /// Bytes.
        var size: Int?
        /// Whether the backing file need not exist.
        var trustsBacking = false
    }

    /// The format of that name.
    /// - Throws: for formats that do not exist and those that cannot be made.
    static func format(named name: String) throws(ToolFailure) -> CreateFormat {
        if let format = CreateFormat.named(name) { return format }
        guard !DriverNames.all.contains(name) else { throw ToolFailure("Format driver '\(name)' does not support image creation") }
        throw ToolFailure("Unknown file format '\(name)'")
    }

    /// Checks the wish and finds out what it leaves open: the size and, for an error message, the format of the backing file.
    /// - Throws: a failure without the file's name in front.
    init(_ wish: Wish, in session: ImageSession) async throws(ToolFailure) {
        let format = try Self.format(named: wish.format)
        do throws(BlockError) {
            _ = try ImageReference(protocolOf: wish.filename)
        } catch {
            throw ToolFailure(nil, error)
        }
        self = try CreateRequest(
            filename: wish.filename, format: format, options: OptionList(parsing: wish.options.joined(separator: ",")))
        if let size = wish.size {
            guard self.size == nil else { throw ToolFailure("The image size must be specified only once") }
            set("size", to: .size(size))
        }
        if let backing = wish.backing {
            guard format.supportsBacking else { throw ToolFailure("Backing file not supported for file format '\(format.name)'") }
            set("backing_file", to: .text(backing))
        }
        if let backingFormat = wish.backingFormat {
            guard format.supportsBacking else { throw ToolFailure("Backing file format not supported for file format '\(format.name)'") }
            set("backing_fmt", to: .text(backingFormat))
        }
        if let backing = text("backing_file") { try await lookAtBacking(backing, trusts: wish.trustsBacking, in: session) }
        guard size != nil else { throw ToolFailure("Image creation needs a size parameter") }
    }

    private func isEncrypted(_ reference: ImageReference, in session: ImageSession) async throws(BlockError) -> Bool {
        var settings = ImageSettings()
        settings.forceShare = true
        settings.opensChain = false
        let image = try await session.open(reference, settings)
        let description = try await image.node.imageDescribing?.describeImage()
        try await session.close(image)
        return description?.isEncrypted == true
    }

    /// Opens the backing file, which shows that it can be opened and how large the new image is when nobody has said so.
    private mutating func lookAtBacking(_ backing: String, trusts: Bool, in session: ImageSession) async throws(ToolFailure) {
        if backing.isEmpty { throw ToolFailure("Expected backing file name, got empty string") }
        if backing == filename { throw ToolFailure("Error: Trying to create an image with the same filename as the backing file") }
        let backingFormat = text("backing_fmt")
        if trusts {
            if backingFormat == nil { throw ToolFailure("Backing file specified without backing format") }
            return
        }
        let path = backing.hasPrefix("json:") || ImageReference.hasProtocol(backing)
            ? backing : BackingReference.resolve(backing, relativeTo: filename)
        var settings = ImageSettings()
        // Only a look at its size: writers need not stop for it.
        settings.forceShare = true
        do throws(BlockError) {
            let reference = try ImageReference(named: path, format: backingFormat)
            // The size of an encrypted image is known without its key.
            settings.opensChain = try await !isEncrypted(reference, in: session)
            let image = try await session.open(reference, settings)
            let length = image.backend.length
            let detected = image.node.formatName
            try await session.close(image)
            if backingFormat == nil {
                throw BlockError(.invalidArgument, "Backing file specified without backing format", hint: "Detected format of \(detected).")
            }
            if size == nil { set("size", to: .size(length)) }
        } catch {
            var failure = ToolFailure(nil, error)
            if failure.advice.isEmpty { failure.advice = ["Could not open backing image."] }
            throw failure
        }
    }
}
