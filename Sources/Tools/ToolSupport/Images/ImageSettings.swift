import QAPIRuntime
import StrataBase

/// How a tool opens an image, beyond what the image's own options say; those always win.
package struct ImageSettings: Sendable, Hashable {
    package var isReadOnly = true
    package var cache = CacheMode.writeback
    /// Open although another process writes to the image; for looking only.
    package var forceShare = false
    /// Whether others may write to the image meanwhile, where its format can live with that.
    package var toleratesWriters = true
    /// Whether backing and data files are opened too.
    package var opensChain = true
    /// Whether the backing file is opened: what changes only metadata can do without.
    package var opensBacking = true
    /// The file driver's `aio` option: threads, native, io_uring; nil for its default.
    package var aio: String?
    /// Whether discards and zeroes may give space back.
    package var unmaps = false
    /// Whether the tool makes the image grow or shrink.
    package var resizes = false

    package init() {}

    /// Fills the settings in where the options leave room.
    func applied(to options: JSONObject) throws(BlockError) -> JSONObject {
        var options = options
        func fill(_ key: String, _ value: JSONValue) { if options[key] == nil { options[key] = value } }
        fill("read-only", .bool(isReadOnly))
        if forceShare { fill("force-share", true) }
        if unmaps { fill("discard", "unmap") }
        var cacheOptions = options["cache"]?.object ?? JSONObject()
        if cacheOptions["direct"] == nil { cacheOptions["direct"] = .bool(cache.direct) }
        if cacheOptions["no-flush"] == nil { cacheOptions["no-flush"] = .bool(cache.noFlush) }
        options["cache"] = .object(cacheOptions)
        let sharesByForce = options["force-share"].map { $0 == true || $0 == "on" } ?? false
        let isReadOnly = options["read-only"].map { $0 == true || $0 == "on" } ?? self.isReadOnly
        if sharesByForce && !isReadOnly {
            throw BlockError(.invalidArgument, "force-share=on can only be used with read-only images")
        }
        return aio.map { Self.adding(aio: $0, to: options) } ?? options
    }

    /// Every file in the tree gets the engine.
    private static func adding(aio: String, to options: JSONObject) -> JSONObject {
        var options = options
        if options["driver"]?.string == "file" {
            if options["aio"] == nil { options["aio"] = .string(aio) }
            return options
        }
        for member in options.members where ["file", "data-file"].contains(member.key) {
            if let child = member.value.object { options[member.key] = .object(adding(aio: aio, to: child)) }
        }
        return options
    }
}
