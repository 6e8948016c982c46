import BlockGraph
import IOCore
import QAPIRuntime
import StrataBase
import ToolSupport

extension IOCommand {
    static let open = IOCommand(
        name: "open", alias: "o", arguments: "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]", summary: "open an image",
        details: [
            " -r      for reading only",
            " -s      writes go to a temporary overlay",
            " -C      what is read from a backing file is kept in the image",
            " -n      bypass the host's page cache (-t none)",
            " -U      open although another process uses the image (with -r)",
            " -k      native AIO; -i MODE names any of threads, native, io_uring",
            " -t MODE cache mode",
            " -d MODE what becomes of discards: ignore or unmap",
            " -o LIST options of the block driver",
            "",
            " 'open -n -o driver=raw /tmp/data' opens raw data for direct I/O.",
        ], count: 1...manyArguments, needsImage: false
    ) { arguments, session throws(CommandFailure) in
        let options = try LetterOptions(arguments, letters: "snCro:ki:t:d:U", command: "open")
        var request = OpenRequest()
        for (letter, value) in options.given {
            switch (letter, value) {
            case ("s", _): request.isSnapshot = true
            case ("n", _): try request.setCache("none")
            case ("C", _): request.copiesOnRead = true
            case ("r", _): request.isReadOnly = true
            case ("k", _): request.aio = "native"
            case ("i", let mode?): try request.setAIO(mode)
            case ("t", let mode?): try request.setCache(mode)
            case ("d", let mode?): try request.setDiscard(mode)
            case ("o", let list?): try request.addOptions(list)
            case ("U", _): request.forceShare = true
            default: throw .usage(nil)
            }
        }
        guard options.operands.count <= 1 else { throw .usage(nil) }
        try await session.open(options.operands.first, request)
    }

    static let close = IOCommand(name: "close", alias: "c", summary: "close the image", count: 0...0) { _, session throws(CommandFailure) in
        try await session.close()
    }

    static let reopen = IOCommand(
        name: "reopen", arguments: "[(-r|-w)] [-c cache] [-o options]", summary: "change how the image is open",
        details: [
            " -r      for reading only",
            " -w      for reading and writing",
            " -c MODE cache mode",
            " -o LIST options of the block driver",
            "",
            " What is not mentioned stays as it is.",
        ], count: 0...manyArguments
    ) { arguments, session throws(CommandFailure) in
        let options = try LetterOptions(arguments, letters: "c:o:rw", command: "reopen")
        var changes = ReopenChanges()
        for (letter, value) in options.given {
            switch (letter, value) {
            case ("c", let word?):
                guard let mode = CacheMode(word) else { throw .reported("Invalid cache option: \(word)") }
                changes.cache = mode
            case ("o", let list?):
                do throws(QMPError) {
                    changes.options.merge(try KeyValueParser.parse(list, impliedKey: nil).object ?? JSONObject())
                } catch {
                    throw .reported(error.message)
                }
            case ("r", _), ("w", _):
                if changes.isReadOnly != nil { throw .reported("Only one -r/-w option may be given") }
                changes.isReadOnly = letter == "r"
            default: throw .usage(nil)
            }
        }
        guard options.operands.isEmpty else { throw .usage(nil) }
        try changes.checkContradictions()
        try await session.reopen(changes)
    }

    static let info = IOCommand(name: "info", alias: "i", summary: "describe the image", count: 0...0) { _, session throws(CommandFailure) in
        let node = try session.disk().image.node
        var text = "format name: \(node.formatName)\n"
        // Drivers that reach something by themselves have a second name, which is the same.
        if node.kind == .protocol || ["blkdebug", "blkverify"].contains(node.formatName) { text += text }
        guard let keeper = dataKeeper(of: node) else {
            StandardStreams.print(text)
            throw .silent
        }
        let description: ImageDescription?
        do throws(BlockError) { description = try await keeper.imageDescribing?.describeImage() } catch { throw .failed("info", error) }
        let clusterSize = description?.clusterSize ?? 0
        let specific = description?.specific?.json["data"]?.object.map(FormatDetails.ordered)
        text += "cluster size: \(SizeText.of(clusterSize))\nvm state offset: \(SizeText.of(vmStateOffset(keeper, clusterSize, specific)))\n"
        // What only one format says is told of the image itself.
        if keeper === node, let specific, !specific.isEmpty { text += "Format specific information:\n\(specific.plainText(indentation: 4))" }
        StandardStreams.print(text)
    }

    /// The node, or the one whose data it passes on, that can say how it keeps data; nil if none can.
    private static func dataKeeper(of node: BlockNode) -> BlockNode? {
        if node.imageDescribing != nil, node.formatName == "qcow2" { return node }
        if node.formatName == "snapshot-access" { return nil }
        if let child = node.primaryChild { return dataKeeper(of: child.node) }
        return node.formatName == "file" || node.formatName == "host_device" ? node : nil
    }

    /// VM state lies behind the last piece of the disk that one level-1 entry maps.
    private static func vmStateOffset(_ node: BlockNode, _ clusterSize: Int, _ specific: JSONObject?) -> Int {
        guard node.formatName == "qcow2", clusterSize > 0 else { return 0 }
        let entrySize = specific?["extended-l2"] == true ? 16 : 8
        return node.length.roundedUp(to: clusterSize * (clusterSize / entrySize))
    }
}
