import BasicDrivers
import BlockGraph
import IOCore
import ManagedObjects
import QAPIRuntime
import StorageCommands
import StorageSchema
import StrataBase
import ToolSupport

/// Opens images one at a time and collects what they say about themselves.
struct InfoCollector {
    private let settings: ImageSettings
    private let objects: ObjectRegistry
    /// A chain that is longer than this is a loop made of ever new names, or an attack.
    private static let maximumChainLength = NodeOpener.maximumLayers

    init(_ settings: ImageSettings, _ objects: ObjectRegistry) {
        self.settings = settings
        self.objects = objects
    }

    /// - Parameter follows: whether to go on to the backing file, its backing file, and so on.
    func chain(from image: ImageArgument, follows: Bool) async throws(ToolFailure) -> [ImageInfo] {
        var chain: [ImageInfo] = []
        var seen: Set<String> = []
        var next: ImageArgument? = image
        while let image = next {
            guard seen.insert(image.text).inserted, chain.count < Self.maximumChainLength else {
                throw ToolFailure("Backing file '\(image.text)' creates an infinite loop.")
            }
            let info = try await describe(image)
            chain.append(info)
            if follows, let backing = info.backing, !backing.isUTF8 {
                throw ToolFailure("The name of the backing file in the image '\(image.text)' is not UTF-8: '\(backing.name)'")
            }
            next = follows ? info.backing.map { ImageArgument($0.fullName ?? $0.name, format: $0.format) } : nil
        }
        return chain
    }

    private func describe(_ named: ImageArgument) async throws(ToolFailure) -> ImageInfo {
        guard let context = IOContext.current else { preconditionFailure("tools run on an I/O context") }
        let session = ImageSession(context: context, objects: objects)
        let image = try await session.open(named, settings)
        do throws(BlockError) {
            let info = try await Self.info(of: image.node, shownAs: image.displayName)
            try await session.close(image)
            return info
        } catch {
            throw ToolFailure("Could not open '\(named.text)'", error)
        }
    }

    private static func info(of node: BlockNode, shownAs filename: String) async throws(BlockError) -> ImageInfo {
        let description = try await node.imageDescribing?.describeImage()
        var info = ImageInfo(
            filename: filename, format: node.formatName, isProtocol: node.kind == .protocol,
            virtualSize: node.length.roundedUp(to: ConvertSource.sectorSize), actualSize: try NodeDescriber.allocatedSize(of: node))
        info.clusterSize = description?.clusterSize
        info.isEncrypted = description?.isEncrypted ?? false
        info.isDirty = description?.isDirty ?? (knowsDirtiness(node) ? false : nil)
        if let name = description?.backingFileName {
            info.backing = .init(
                name: name, fullName: BackingReference.resolve(name, relativeTo: node.filename), format: description?.backingFormat,
                isUTF8: description?.isBackingFileNameUTF8 ?? true)
        }
        info.snapshots = (description?.snapshots ?? []).map(SnapshotInfo.init)
        info.formatSpecific = description?.specific?.json["data"]?.object.map(FormatDetails.ordered)
        if node.formatName == "file" { info.formatSpecific = info.formatSpecific ?? JSONObject() }
        var names = NodeDescriptions()
        for child in node.children where !child.role.contains(.copyOnWrite) {
            info.children.append(.init(name: child.name, info: try await Self.info(of: child.node, shownAs: names.filename(of: child.node))))
        }
        return info
    }

    private static func knowsDirtiness(_ node: BlockNode) -> Bool {
        var node = node
        while node.kind == .filter || ["raw", "luks"].contains(node.formatName), let below = node.primaryChild?.node { node = below }
        return node.formatName != "nbd" && !node.formatName.hasPrefix("null-")
    }
}
