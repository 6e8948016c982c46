import QAPIRuntime

/// How a node is called where users expect a file name: a name that opens it when there is one, else `json:` and its options.
///
/// A node's description is made of its children's. `NodeDescriptions` does that for nodes as they hang together now.
package struct NodeDescription: Sendable {
    /// The name that opens this node by itself, without a format above it: a path, `nbd://…`.
    let protocolName: String?
    /// The name that opens the node, its format found out or given beside; nil when only options can.
    package let exactName: String?
    /// The options that tell this node from others: driver, own options and children.
    let options: JSONObject
    /// How many descriptions lie in each other.
    let depth: Int

    /// Longer names are cut, in bytes: as long as QEMU keeps them.
    private static let longestName = 4095
    /// Descriptions that lie deeper than this in each other are cut off; the name that they are for would be cut long before.
    private static let deepest = 150

    /// The file name to show.
    package var filename: String {
        if let exactName { return exactName }
        let text = "json:" + JSONValue.object(options).text()
        return text.utf8.count <= Self.longestName ? text : (String(text.utf8.prefix(Self.longestName - 3)) ?? "json:") + "..."
    }

    /// A child as its parent's description needs it.
    struct Part {
        let child: BlockChild
        let description: NodeDescription
    }

    /// - Parameters:
    ///   - identity: the node's own options that tell it from others.
    ///   - backingName: the backing file that the image names; nil for none.
    ///   - isAlone: the chain was not wanted, so that a missing backing file says nothing.
    init(_ driver: String, kind: DriverKind, identity: JSONObject, backingName: String?, isAlone: Bool, parts: [Part]) {
        let backing = parts.first { $0.child.role.contains(.copyOnWrite) }
        let isOverridden: Bool
        if let backing {
            isOverridden = backing.description.filename != backing.child.expectedFilename ?? backingName ?? ""
        } else {
            isOverridden = backingName != nil && !isAlone
        }
        protocolName = Self.protocolName(driver, identity, parts)
        let primary = parts.first { $0.child.role.contains(.primary) }
        if let protocolName {
            exactName = protocolName
        } else if kind == .format, identity.isEmpty, !isOverridden {
            exactName = primary?.description.protocolName
        } else {
            exactName = Self.transparentName(driver, parts)
        }
        depth = 1 + (parts.map(\.description.depth).max() ?? 0)
        options = depth > Self.deepest ? JSONObject(["driver": .string(driver)]) : Self.options(driver, identity, parts, isOverridden)
    }

    private static func options(_ driver: String, _ identity: JSONObject, _ parts: [Part], _ isOverridden: Bool) -> JSONObject {
        var options = JSONObject(["driver": .string(driver)])
        for member in identity.members { options[member.key] = member.value }
        var hasBacking = false
        for part in parts {
            if part.child.role.contains(.copyOnWrite) {
                hasBacking = true
                if !isOverridden { continue }
            }
            // The members of a list: `children.0`, `children.1`.
            if let dot = part.child.name.firstIndex(of: ".") {
                let list = String(part.child.name[..<dot])
                options[list] = .array((options[list]?.array ?? []) + [.object(part.description.options)])
            } else {
                options[part.child.name] = .object(part.description.options)
            }
        }
        if isOverridden, !hasBacking { options["backing"] = .null }
        return options
    }

    /// Filters that are called as what they are put over.
    private static func transparentName(_ driver: String, _ parts: [Part]) -> String? {
        let children = ["commit_top": "backing", "mirror_top": "backing", "copy-before-write": "file"]
        return parts.first { $0.child.name == children[driver] }?.description.filename
    }

    private static func protocolName(_ driver: String, _ identity: JSONObject, _ parts: [Part]) -> String? {
        func name(_ child: String) -> String? { parts.first { $0.child.name == child }?.description.exactName }
        switch driver {
        case "commit_top", "mirror_top": return name("backing")
        case "file", "host_device": return identity["filename"]?.string
        case "null-co", "null-aio": return identity.isEmpty ? "\(driver)://" : nil
        case "nbd": return NBDName.text(identity)
        case "blkdebug":
            guard identity.members.allSatisfy({ $0.key == "config" }), let image = name("image") else { return nil }
            return "blkdebug:\(identity["config"]?.string ?? ""):\(image)"
        case "blkverify":
            guard let raw = name("raw"), let test = name("test") else { return nil }
            return "blkverify:\(raw):\(test)"
        default: return nil
        }
    }
}

/// Which of a driver's own options tell what the node shows, as opposed to how it goes about it. Children are not among them.
enum IdentifyingOptions {
    private static let keys: [String: [String]] = [
        "file": ["filename"],
        "host_device": ["filename"],
        "nbd": ["server", "export", "tls-creds", "tls-hostname", "x-dirty-bitmap"],
        "null-aio": ["size", "read-zeroes"],
        "null-co": ["size", "read-zeroes"],
        "raw": ["offset", "size"],
        "throttle": ["throttle-group"],
        "quorum": ["vote-threshold", "blkverify", "rewrite-corrupted", "read-pattern"],
        "luks": ["key-secret"], "qcow2": ["encrypt"],
    ]

    static func of(_ driver: String, _ definition: JSONValue) -> JSONObject {
        var identity = JSONObject()
        if driver == "blkdebug" { return rules(definition) }
        for key in keys[driver] ?? [] { identity[key] = definition[key] }
        return identity
    }
}

extension IdentifyingOptions {
    private static let ofEveryNode: Set<String> = ["driver", "node-name", "discard", "cache", "read-only", "auto-read-only", "force-share", "detect-zeroes", "active"]

    /// All of blkdebug's own options: each of them changes what requests meet. Rules are written out as QEMU does: `inject-error.0.errno`.
    private static func rules(_ definition: JSONValue) -> JSONObject {
        var identity = JSONObject()
        for (key, value) in (definition.object ?? JSONObject()).members.map({ ($0.key, $0.value) }) where key != "image" && !ofEveryNode.contains(key) {
            guard let list = value.array else {
                identity[key] = value
                continue
            }
            for (index, rule) in list.enumerated() {
                if let members = rule.object { for member in members.members { identity["\(key).\(index).\(member.key)"] = member.value } }
                else { identity["\(key).\(index)"] = rule }
            }
        }
        return identity
    }
}

/// The descriptions of nodes as they hang together now, each made once. For one query, while the graph does not change.
package struct NodeDescriptions {
    private var known: [NodeIdentity: NodeDescription] = [:]
    /// Which object a node is, as a number: every further type of keys costs a search when a tool starts (Docs/Decisions/0010-how-the-program-starts.md).
    private typealias NodeIdentity = Int

    package init() {}

    private static func identity(_ node: BlockNode) -> NodeIdentity { NodeIdentity(bitPattern: ObjectIdentifier(node)) }

    package mutating func filename(of node: BlockNode) -> String { description(of: node).filename }

    package mutating func description(of node: BlockNode) -> NodeDescription {
        // Children first, with a stack of its own: chains can be thousands deep.
        var stack = [node]
        while let current = stack.last {
            let id = Self.identity(current)
            if known[id] == nil {
                let missing = current.children.filter { known[Self.identity($0.node)] == nil }
                if !missing.isEmpty {
                    for child in missing { stack.append(child.node) }
                    continue
                }
                known[id] = current.describe { known[Self.identity($0)] ?? $0.descriptionWhenOpened }
            }
            stack.removeLast()
        }
        return known[Self.identity(node)] ?? node.descriptionWhenOpened
    }
}

extension BlockNode {
    fileprivate func describe(_ descriptionOf: (BlockNode) -> NodeDescription) -> NodeDescription {
        NodeDescription(
            formatName, kind: kind, identity: identity, backingName: imageDescribing?.backingName, isAlone: options.isAlone,
            parts: children.map { NodeDescription.Part(child: $0, description: descriptionOf($0.node)) })
    }
}
