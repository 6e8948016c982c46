import BlockGraph
import IOCore
import StrataBase
import ToolSupport

/// `convert`: copies images into a new one, in another format if need be.
enum ConvertCommand: ImgCommand {
    enum Key: ProgressOptionKey {
        case help, quiet, progress, sourceFormat, sourceImageOptions, snapshot, sourceCache, targetFormat, targetImageOptions, targetOptions
        case compress, targetCache, backing, backingFormat, noCreate, targetIsZero, sparseSize, bitmaps, skipBrokenBitmaps, forceShare, rate
        case parallel, copyOffload, salvage, outOfOrder, object
    }

    static let name = "convert"
    static let declaration = CommandDeclaration<Key>(
        name, summary: "Copy one image to another with optional format conversion",
        usage: [
            "[-f SRC_FMT | --image-opts] [-T SRC_CACHE] [-U]", "[-O TGT_FMT | --target-image-opts] [-o TGT_OPTS] [-t TGT_CACHE] [-n [--target-is-zero]]",
            "[-B BACKING_FILENAME -F BACKING_FMT] [-S SPARSE_SIZE] [-m NUM] [-W] [-C] [-r RATE]", "[-c] [-q] [-p] SRC_FILENAME [SRC_FILENAME2 [...]] TGT_FILENAME",
        ],
        options: [
            .quiet(.quiet),
            .progress(.progress).ownWord,
            .init(.sourceFormat, "f", "source-format", value: "SRC_FMT", help: "the sources' format; found out when not given"),
            .init(.sourceImageOptions, nil, "source-image-opts", help: "each SRC_FILENAME is a list of options instead of a file name"),
            .init(.sourceImageOptions, nil, "image-opts", help: "the same"),
            .init(.snapshot, "l", "source-snapshot", value: "SNAPSHOT", help: "read this snapshot: an ID, a name,", "or snapshot.id=ID,snapshot.name=NAME").ownWord,
            .init(.snapshot, nil, "snapshot", value: "SNAPSHOT", help: "the same"),
            .init(.sourceCache, "T", "source-cache", value: "SRC_CACHE", help: "cache mode of the sources (default: writeback)"),
            .init(.targetFormat, "O", "target-format", value: "TGT_FMT", help: "the target's format (default: raw)").ownWord,
            .init(.targetFormat, nil, "output-format", value: "TGT_FMT", help: "the same"),
            .init(.targetImageOptions, nil, "target-image-opts", help: "TGT_FILENAME is a list of options instead of a file name"),
            .init(.targetOptions, "o", "target-options", value: "TGT_OPTS", help: "options of the target's format; '-o help' lists them").ownWord,
            .init(.targetOptions, nil, "options", value: "TGT_OPTS", help: "the same"),
            .init(.compress, "c", "compress", help: "store the data compressed (qcow2 only)").ownWord,
            .init(.targetCache, "t", "target-cache", value: "TGT_CACHE", help: "cache mode of the target (default: unsafe)").ownWord,
            .init(.targetCache, nil, "output-cache", value: "TGT_CACHE", help: "the same"),
            .init(.backing, "B", "backing", value: "BACKING_FILENAME", help: "put the target on top of this image, whose data is not copied"),
            .init(.backingFormat, "F", "backing-format", value: "BACKING_FMT", help: "the format of BACKING_FILENAME"),
            .init(.noCreate, "n", "no-create", help: "write into an existing target").ownWord,
            .init(.targetIsZero, nil, "target-is-zero", help: "the existing target reads as zero everywhere"),
            .init(.sparseSize, "S", "sparse-size", value: "SPARSE_SIZE", help: "leave out runs of zeroes of this many bytes (default: 4k);", "0 allocates everything"),
            .init(.bitmaps, nil, "bitmaps", help: "copy the bitmaps that the source keeps too"),
            .init(.skipBrokenBitmaps, nil, "skip-broken-bitmaps", help: "leave out bitmaps that are damaged"),
            .init(.forceShare, "U", "force-share", help: "open the sources even if another process writes to them"),
            .init(.rate, "r", "rate", value: "RATE", help: "bytes per second at most"),
            .init(.parallel, "m", "parallel", value: "NUM", help: "requests under way at once, 1 to 16 (default: 8)"),
            .init(.copyOffload, "C", "copy-range-offloading", help: "let the file system copy where it can"),
            .init(.salvage, nil, "salvage", help: "go on after read errors: what cannot be read becomes zeroes"),
            .init(.outOfOrder, "W", "oob-writes", help: "write in any order, which can be faster"),
            .object(.object),
        ],
        operands: [
            .init("SRC_FILENAME", help: "an image to read; several are put one behind the other"), .init("TGT_FILENAME", help: "the image to write"),
        ])

    static func run(_ arguments: ParsedArguments<Key>, _ context: CommandContext) async throws(ToolFailure) -> Int32 {
        let objects = try UserObjects.make(arguments.all(.object))
        if !arguments.contains(.noCreate), arguments.all(.targetOptions).contains(where: { OptionList(parsing: $0).asksForHelp }) {
            let text = try CreateRequest.format(named: arguments.last(.targetFormat) ?? "raw").helpText(knowsFile: arguments.operands.count > 1)
            return StandardStreams.print(text) ? 0 : 1
        }
        let plan = try ConvertPlan(arguments)
        try await Conversion(plan, on: context.ioContext, objects: objects).run()
        return 0
    }
}
