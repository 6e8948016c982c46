import BlockGraph
import QAPIRuntime
import StorageSchema
import StrataBase

// `backing.encrypt.key-secret=s`: options for a backing file whose name and format stand in the image above.

extension ImageSession {
    /// Fills in what the options for backing files leave to the images that name them: the file, the format, or both.
    func withStoredBacking(_ options: JSONObject) async throws(BlockError) -> JSONObject {
        guard options["driver"] == "qcow2", var backing = options["backing"]?.object else { return options }
        let leavesFile = backing["filename"] == nil && (backing["file"] == nil || backing["file"]?.object.map { $0["driver"] == nil } == true)
        if leavesFile || backing["driver"] == nil, let stored = try await storedBacking(of: options, leavesFile: leavesFile) {
            if leavesFile {
                var file = stored.options
                file.merge(backing)
                backing = file
            }
            // Where neither says which format, there is none: guessing lets a guest choose one, and by it other files.
            backing["driver"] = backing["driver"] ?? stored.format.map(JSONValue.string)
        }
        var options = options
        options["backing"] = .object(try await withStoredBacking(backing))
        return options
    }

    /// What an image says about its backing file; nil when it has none.
    /// - Parameter leavesFile: whether the file that it names is going to be opened.
    private func storedBacking(of options: JSONObject, leavesFile: Bool) async throws(BlockError) -> (options: JSONObject, format: String?)? {
        var image = options
        image["backing"] = nil
        image["read-only"] = .bool(true)
        let resolved = try LegacyOptions.resolved(in: try await withEncryptionFormat(image))
        let decoded: BlockdevOptions
        do throws(QMPError) { decoded = try BlockdevOptions(decoding: .object(resolved), mode: .keyValue) } catch {
            throw BlockError(.invalidArgument, Self.explain(error, image))
        }
        let node = try await graph.add(decoded, opensChain: false)
        let stored: (String, String?)?
        do throws(BlockError) {
            let description = try await node.imageDescribing?.describeImage()
            if leavesFile, let name = description?.backingFileName, description?.isBackingFileNameUTF8 == false {
                throw BlockError(.invalidArgument, "The name of the backing file in the image is not UTF-8: '\(name)'", hint: "Name the backing file in the options.")
            }
            stored = description?.backingFileName.map { (BackingReference.resolve($0, relativeTo: node.primaryChild?.node.filename), description?.backingFormat) }
        } catch {
            try await graph.remove(nodeNamed: node.name)
            throw error
        }
        try await graph.remove(nodeNamed: node.name)
        guard let (name, format) = stored else { return nil }
        var file = try ImageName.options(name, format: nil)
        // The format beside the name decides, whatever a description says.
        file["driver"] = nil
        return (file, format)
    }
}
