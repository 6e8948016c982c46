import BlockGraph
import IOCore
import StrataBase
import ToolSupport

/// `bitmap`: changes the bitmaps that an image keeps.
enum BitmapCommand: ImgCommand {
    enum Key: ImageOptionKey {
        case help, format, imageOptions, add, remove, clear, enable, disable, merge, granularity, sourceFile, sourceFormat, object
    }

    static let name = "bitmap"
    static let declaration = CommandDeclaration<Key>(
        name, summary: "Perform modifications of the persistent bitmap in the image",
        usage: [
            "(--merge SOURCE | --add | --remove | --clear | --enable | --disable)...", "[-f FMT | --image-opts] [-b SRC_FILENAME [-F SOURCE_FMT]] [-g SIZE[KMGTPE]]",
            "[--object OBJDEF] FILENAME BITMAP",
        ],
        options: [
            .format(.format).ownWord,
            .imageOptions(.imageOptions),
            .init(.add, nil, "add", help: "make BITMAP, which records writes from then on"),
            .init(.granularity, "g", "granularity", value: "SIZE[KMGTPE]", help: "with --add: bytes for each bit"),
            .init(.remove, nil, "remove", help: "remove BITMAP"),
            .init(.clear, nil, "clear", help: "forget what BITMAP has recorded"),
            .init(.enable, nil, "enable", help: "record writes in BITMAP from now on"),
            .init(.disable, nil, "disable", help: "record no more writes in BITMAP"),
            .init(.merge, nil, "merge", value: "SOURCE", help: "add what the bitmap SOURCE has recorded"),
            .init(.sourceFile, "b", "source-file", value: "SRC_FILENAME", help: "with --merge: the image that has SOURCE, if it is another one"),
            .init(.sourceFormat, "F", "source-format", value: "SRC_FMT", help: "the format of SRC_FILENAME; found out when not given"),
            .object(.object),
        ],
        operands: [.init("FILENAME", help: "the image"), .init("BITMAP", help: "the bitmap")])

    static func run(_ arguments: ParsedArguments<Key>, _ context: CommandContext) async throws(ToolFailure) -> Int32 {
        let objects = try UserObjects.make(arguments.all(.object))
        var actions: [BitmapAction] = []
        var granularity: Int?
        for option in arguments.occurrences {
            switch option.key {
            case .add: actions.append(.add)
            case .remove: actions.append(.remove)
            case .clear: actions.append(.clear)
            case .enable: actions.append(.enable)
            case .disable: actions.append(.disable)
            case .merge: actions.append(.merge(option.value ?? ""))
            case .granularity:
                // 0 asks for what suits the image.
                let value = try NumberArgument.parse(option.value ?? "", "granularity", in: 0...Int.max)
                granularity = value == 0 ? nil : value
            case .help, .format, .imageOptions, .sourceFile, .sourceFormat, .object: break
            }
        }
        if actions.isEmpty { throw ToolFailure("Need at least one of --add, --remove, --clear, --enable, --disable, or --merge") }
        if granularity != nil, !actions.contains(.add) { throw ToolFailure("granularity only supported with --add") }
        let sourceFile = arguments.last(.sourceFile)
        if sourceFile != nil, !actions.contains(where: { if case .merge = $0 { true } else { false } }) {
            throw ToolFailure("Merge bitmap source file only supported with --merge")
        }
        if sourceFile == nil, arguments.contains(.sourceFormat) { throw ToolFailure("-F only supported with -b") }
        guard arguments.operands.count == 2 else { throw ToolFailure("Expecting filename and bitmap name") }
        let named = try arguments.image(arguments.operands[0])

        let session = ImageSession(context: context.ioContext, objects: objects)
        var settings = ImageSettings()
        settings.isReadOnly = false
        // Bitmaps are no matter of what the chain below holds.
        settings.opensBacking = false
        let progress = ProgressReporter(.whenItTakesLong)
        // Most of the time goes into opening, which reads the bitmaps, and closing, which writes them.
        try await progress.watching(on: context.ioContext, { (0, 1) }) { () async throws(ToolFailure) in
            let image = try await progress.beforehand { () async throws(ToolFailure) in try await session.open(named, settings) }
            Interruption.leaves("the bitmaps of '\(named.text)' may not have changed: look at them with info")
            defer { Interruption.leavesNothing() }
            try await session.closing(progress) { () async throws(ToolFailure) in
                var source: OpenImage?
                if let sourceFile {
                    var settings = ImageSettings()
                    settings.opensBacking = false
                    source = try await session.open(ImageArgument(sourceFile, format: arguments.last(.sourceFormat)), settings)
                }
                let bitmap = BitmapTarget(name: arguments.operands[1], granularity: granularity, node: image.node, source: source?.node ?? image.node, graph: session.graph)
                // All of it comes into force at the end.
                try await bitmap.run(actions)
            }
        }
        return 0
    }
}

/// One thing to be done with a bitmap.
enum BitmapAction: Hashable, Sendable {
    case add, remove, clear, enable, disable
    case merge(String)

    /// As messages call it.
    var name: String {
        switch self {
        case .add: "add"
        case .remove: "remove"
        case .clear: "clear"
        case .enable: "enable"
        case .disable: "disable"
        case .merge: "merge"
        }
    }
}
