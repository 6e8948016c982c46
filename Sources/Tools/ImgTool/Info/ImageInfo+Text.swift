import QAPIRuntime
import StrataBase

// The text of `info` for people. Scripts read it too: every word and blank is qemu-img's.

extension ImageInfo {
    /// - Parameters:
    ///   - path: the edges that lead from the image to this node, as in `/file/`.
    ///   - indentation: blanks in front of every line.
    func text(path: String = "/", indentation: Int = 0) -> String {
        let margin = String(repeating: " ", count: indentation)
        var text = ""
        func line(_ content: String) { text += "\(margin)\(content)\n" }

        let isBelow = path != "/" && isProtocol
        line(isBelow ? "filename: \(filename)" : "image: \(filename)")
        line(isBelow ? "protocol type: \(format)" : "file format: \(format)")
        line("\(isBelow ? "file length" : "virtual size"): \(ByteSize.humanReadable(virtualSize)) (\(virtualSize) bytes)")
        line("disk size: \(actualSize.map(ByteSize.humanReadable) ?? "unavailable")")
        if isEncrypted { line("encrypted: yes") }
        if let clusterSize { line("cluster_size: \(clusterSize)") }
        if isDirty == true { line("cleanly shut down: no") }
        if let backing {
            line("backing file: \(backing.name)\(Self.pathRemark(backing))")
            if let format = backing.format { line("backing file format: \(format)") }
        }
        if !snapshots.isEmpty {
            line("Snapshot list:")
            line(SnapshotInfo.header)
            for snapshot in snapshots { line(snapshot.line) }
        }
        if let formatSpecific, !formatSpecific.isEmpty {
            line("Format specific information:")
            text += formatSpecific.plainText(indentation: indentation + 4)
        }
        for child in children {
            let childPath = "\(path)\(child.name)"
            line("Child node '\(childPath)':")
            text += child.info.text(path: "\(childPath)/", indentation: indentation + 4)
        }
        return text
    }

    private static func pathRemark(_ backing: Backing) -> String {
        switch backing.fullName {
        case backing.name?: ""
        case let fullName?: " (actual path: \(fullName))"
        case nil: " (cannot determine actual path)"
        }
    }
}
