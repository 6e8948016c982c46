package import BlockGraph
package import IOCore
package import ManagedObjects
package import QAPIRuntime
import StorageCommands
import StorageSchema
package import StrataBase

/// A graph of its own for one run of a tool, with the images that the tool has opened in it.
package final class ImageSession: Sendable {
    package let graph: BlockGraph

    /// - Parameters:
    ///   - context: runs the graph's control plane.
    ///   - objects: what the options of images refer to by id.
    package init(context: IOContext, objects: ObjectRegistry) {
        graph = BlockGraph(context: context, drivers: DriverCatalog.registry, objects: objects)
    }

    /// Opens an image, finding out its format where the name leaves it open.
    /// - Throws: what is wrong. The message does not repeat the image's name.
    package func open(_ reference: ImageReference, _ settings: ImageSettings = ImageSettings()) async throws(BlockError) -> OpenImage {
        var options = try settings.applied(to: reference.options)
        let wasProbed = options["driver"] == nil
        if wasProbed { options["driver"] = .string(try await probe(options)) }
        if settings.opensBacking, settings.opensChain { options = try await withStoredBacking(options) }
        options = try await withEncryptionFormat(options)
        if !settings.opensBacking, options["backing"] == nil, options["driver"] == "qcow2" {
            options["backing"] = .null
        }
        let resolved = try LegacyOptions.resolved(in: options)
        let decoded: BlockdevOptions
        do throws(QMPError) {
            decoded = try BlockdevOptions(decoding: .object(resolved), mode: .keyValue)
        } catch {
            throw BlockError(.invalidArgument, Self.explain(error, options))
        }
        let node = try await graph.add(decoded, opensChain: settings.opensChain, isProbed: wasProbed)
        do throws(BlockError) {
            let backend = try await graph.makeBackend(named: "image '\(reference.text)'", on: node.name, Self.grant(settings, node))
            return OpenImage(
                reference: reference, options: options, node: node, backend: backend, wasProbed: wasProbed,
                writeFlags: settings.cache.writeback ? [] : [.forceUnitAccess])
        } catch {
            try await graph.remove(nodeNamed: node.name)
            throw error
        }
    }

    /// The options with which an image can be opened below another node: with the settings applied, and the format, which is found out if need be.
    package func withKnownFormat(_ reference: ImageReference, _ settings: ImageSettings) async throws(BlockError) -> JSONObject {
        var options = try settings.applied(to: reference.options)
        if options["driver"] == nil { options["driver"] = .string(try await probe(options)) }
        return options
    }

    /// Closes an image that this session has opened.
    /// - Throws: when its last metadata cannot be written.
    package func close(_ image: OpenImage) async throws(BlockError) {
        await graph.release(image.backend)
        try await graph.remove(nodeNamed: image.node.name)
    }

    /// Lends out a file that is to become an image, emptied first, and closes it.
    package func withEmptied(_ reference: ImageReference, cache: CacheMode = .writeback, _ body: (BlockBackend) async throws(BlockError) -> Void) async throws(BlockError) {
        try await withWritable(reference, cache: cache) { file async throws(BlockError) in
            try await file.resize(to: 0)
            try await body(file)
        }
    }

    /// Lends out a file that keeps what it has, to be written and resized, and closes it.
    package func withWritable(_ reference: ImageReference, cache: CacheMode = .writeback, _ body: (BlockBackend) async throws(BlockError) -> Void) async throws(BlockError) {
        var settings = ImageSettings()
        settings.isReadOnly = false
        settings.resizes = true
        settings.cache = cache
        let file = try await open(reference, settings)
        do throws(BlockError) { try await body(file.backend) } catch {
            // What went wrong first is what the user needs to know.
            do { try await close(file) } catch {}
            throw error
        }
        try await close(file)
    }

    /// Closes everything.
    package func close() async throws(BlockError) { try await graph.closeAll() }

    private static func grant(_ settings: ImageSettings, _ node: BlockNode) -> PermissionGrant {
        var used: BlockPermissions = settings.opensChain ? [.consistentRead] : []
        // Readers and writers of the same image are the formats' business; its size must stay as the tool knows it.
        var shared = BlockPermissions.all
        if !node.isReadOnly && !settings.isReadOnly {
            used.insert(.write)
            if settings.resizes { used.insert(.resize) }
        }
        shared.remove(.resize)
        if !settings.toleratesWriters { shared.remove(.write) }
        return PermissionGrant(used: used, shared: shared)
    }

    private func probe(_ options: JSONObject) async throws(BlockError) -> String {
        guard let file = options["file"]?.object else { return "raw" }
        return try await probeFormat(inside: file)
    }

    /// QEMU's tools word some refusals differently from QMP; scripts know those words.
    static func explain(_ error: QMPError, _ options: JSONObject) -> String {
        if let driver = options["driver"]?.string {
            if BlockdevDriver(rawValue: driver) == nil { return "Unknown driver '\(driver)'" }
            if error.message == "Parameter 'file' is missing" { return "A block device must be specified for \"file\"" }
        }
        // Drivers below say it in the words of the one on top.
        let words = error.message.split(separator: "'")
        if words.count == 4, words[1].hasSuffix(".driver"), words[2] == " does not accept value " { return "Unknown driver '\(words[3])'" }
        let unexpected = (start: "Parameter '", end: "' is unexpected")
        if error.message.hasPrefix(unexpected.start), error.message.hasSuffix(unexpected.end) {
            let path = error.message.dropFirst(unexpected.start.utf8.count).dropLast(unexpected.end.utf8.count)
            return refusal(ofOption: path, in: options)
        }
        return error.message
    }

    /// Names the driver that does not know an option, and the option as that driver sees it.
    private static func refusal(ofOption path: Substring, in options: JSONObject) -> String {
        var options = options
        var path = path
        while let dot = path.firstIndex(of: "."), let child = options[String(path[..<dot])]?.object, child["driver"] != nil {
            options = child
            path = path[path.index(after: dot)...]
        }
        let driver = options["driver"]?.string ?? ""
        return ImageReference.protocols.contains(driver)
            ? "Block protocol '\(driver)' doesn't support the option '\(path)'" : "Block format '\(driver)' does not support the option '\(path)'"
    }
}

/// An image that a tool has opened.
package struct OpenImage: Sendable {
    package let reference: ImageReference
    /// With everything that was filled in.
    package let options: JSONObject
    package let node: BlockNode
    package let backend: BlockBackend
    /// The image's name in output: one that opens it, or else its options as the user wrote them.
    package var displayName: String {
        var names = NodeDescriptions()
        let description = names.description(of: node)
        return description.exactName ?? (wasProbed ? description.filename : "json:\(reference.json.text())")
    }
    /// Whether the format is a guess.
    package let wasProbed: Bool
    /// What writes carry so that they obey the cache mode.
    package let writeFlags: RequestFlags
}
