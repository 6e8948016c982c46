import BlockGraph
import IOCore
import ToolSupport

/// The image that a commit goes to.
enum CommitBase {
    /// - Parameters:
    ///   - name: what `-b` says: a file name, relative to the image that it is the backing file of; nil for the next image of the chain.
    ///   - top: the image that is committed.
    static func find(_ name: String?, below top: BlockNode, named topName: String) throws(ToolFailure) -> BlockNode {
        var overlay = top.belowFilters
        guard let name else {
            guard let next = overlay.backingChild?.node.belowFilters else { throw ToolFailure("Image does not have a backing file") }
            return next
        }
        // A chain goes on through backing files and filters. What lies below the plain bytes of a raw image is no base of it.
        while let candidate = overlay.backingChild?.node.belowFilters {
            if matches(name, candidate, overlay) { return candidate }
            overlay = candidate
        }
        throw ToolFailure("Did not find '\(name)' in the backing chain of '\(topName)'")
    }

    /// Whether the name is the one that the overlay stores, or another one of the same file.
    private static func matches(_ name: String, _ node: BlockNode, _ overlay: BlockNode) -> Bool {
        if name.isEmpty { return false }
        if name == overlay.imageDescribing?.backingName { return true }
        var names = NodeDescriptions()
        if name == names.filename(of: node) { return true }
        guard let filename = names.description(of: node).exactName, let identity = HostFile.identity(ofFileNamed: filename) else { return false }
        return HostFile.identity(ofFileNamed: BackingReference.resolve(name, relativeTo: overlay.filename)) == identity
    }
}

extension BlockNode {
    /// The node itself, or the image that the filters on top show.
    var belowFilters: BlockNode {
        var node = self
        while node.kind == .filter, let below = node.chainChild?.node { node = below }
        return node
    }
}
