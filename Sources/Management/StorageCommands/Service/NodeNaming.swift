import BasicDrivers
package import BlockGraph
import QAPIRuntime

/// How a node is called where users expect a file name.
package enum NodeNaming {
    /// The name of the host file at the bottom. A node that has none is described by its options, as QEMU does: `json:{"driver": …}`.
    package static func filename(of node: BlockNode) -> String {
        if let filename = node.filename { return filename }
        // A format over such a node adds nothing that the name below does not say.
        if let primary = node.primaryChild { return filename(of: primary.node) }
        var options: JSONValue = ["driver": .string(node.formatName)]
        if node.driver is any NullDisk {
            if node.length == NullSettings.defaultSize { return "\(node.formatName)://" }
            options = ["driver": .string(node.formatName), "size": .integer(node.length)]
        }
        return "json:\(options.text())"
    }
}
