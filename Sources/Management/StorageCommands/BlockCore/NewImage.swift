import BlockGraph
import IOCore
import QCOW2
import StorageSchema
import StrataBase

/// An image file that a command makes for itself.
struct NewImage {
    let graph: BlockGraph
    /// The file. What it holds is lost.
    let path: String
    let format: BlockdevDriver
    /// What the image is made for: it gets its size, and must not be made over it.
    let source: BlockNode
    /// Bytes.
    private var size: Int { source.length }
    /// The same in whole sectors, which qcow2 wants.
    private var sectorSize: Int { size.roundedUp(to: 512) }

    /// Makes the image. A file that had to be made for this is gone again when that fails.
    /// - Parameter backing: whose image the new one names as its backing file; nil for none.
    /// - Returns: whether the file had to be made.
    /// - Throws: `.unsupported` for formats that cannot be made, or not with a backing file; `.invalidArgument` when the file holds some of the source.
    func create(over backing: BlockNode?) async throws(BlockError) -> Bool {
        try await refuseToOverwriteSource()
        let fill: (BlockBackend) async throws(BlockError) -> Void
        switch format {
        case .raw, .file, .hostDevice:
            if backing != nil { throw Self.takesNoBacking(format.rawValue) }
            fill = { [size] backend throws(BlockError) in try await backend.resize(to: size) }
        case .qcow2:
            let options = try await qcow2Options(over: backing)
            fill = { backend throws(BlockError) in try await QCOW2Driver.create(options, in: backend) }
        default: throw BlockError(.unsupported, "Format driver '\(format.rawValue)' does not support image creation")
        }
        return try await graph.withNewFile(path, holder: "the new image '\(path)'", fill)
    }

    /// Locks would see to it as well, but users can turn them off.
    private func refuseToOverwriteSource() async throws(BlockError) {
        guard let file = HostFile.identity(ofFileNamed: path) else { return }
        let state = await graph.snapshot
        for name in state.topologicalOrder(from: [source.name]) {
            guard let node = state.nodes[name]?.node, node.kind == .protocol, let used = node.filename, HostFile.identity(ofFileNamed: used) == file else { continue }
            throw BlockError(
                .invalidArgument, "Error: Trying to create an image with the same filename as the backing file",
                hint: "'\(path)' holds data of node '\(source.name)'.")
        }
    }

    static func takesNoBacking(_ format: String) -> BlockError {
        BlockError(.unsupported, "Backing file not supported for file format '\(format)'")
    }

    private func qcow2Options(over backing: BlockNode?) async throws(BlockError) -> BlockdevCreateOptionsQcow2 {
        guard let backing else { return BlockdevCreateOptionsQcow2(file: .reference(""), size: sectorSize) }
        guard let format = BlockdevDriver(rawValue: backing.formatName) else {
            throw BlockError(.unsupported, "A node of driver '\(backing.formatName)' cannot be named as a backing file")
        }
        return BlockdevCreateOptionsQcow2(file: .reference(""), size: sectorSize, backingFile: try await backingName(of: backing), backingFmt: format)
    }

    /// What to write into the image so that it is found again with the same data below: where the images of the chain do not say by themselves how
    /// they hang together, a whole description.
    /// - Throws: `.unsupported` when that is too long for a name.
    private func backingName(of node: BlockNode) async throws(BlockError) -> String {
        let name = try await graph.withoutChanges { () async throws(BlockError) -> String in
            var names = NodeDescriptions()
            return names.filename(of: node)
        }
        if name == node.filename {
            // A relative name starts at the folder of the image that it is written into, which need not be ours.
            return path.contains("/") ? HostPath.absolute(name) : name
        }
        if name.hasPrefix("json:"), name.hasSuffix("...") {
            throw BlockError(
                .unsupported, "The chain below node '\(node.name)' takes too many words to be the name of a backing file",
                hint: "Write into its images what they are based on with change-backing-file, or make the overlay yourself and use blockdev-snapshot.")
        }
        return name
    }
}
