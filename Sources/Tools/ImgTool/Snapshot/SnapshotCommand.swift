import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import ToolSupport

/// `snapshot`: lists, makes, applies and deletes the snapshots inside an image.
enum SnapshotCommand: ImgCommand {
    enum Key: ImageOptionKey { case help, quiet, format, imageOptions, forceShare, list, create, apply, delete, object }

    static let name = "snapshot"
    static let declaration = CommandDeclaration<Key>(
        name, summary: "List or manipulate snapshots within image",
        usage: ["[-f FMT | --image-opts] [-l | -a SNAPSHOT | -c SNAPSHOT | -d SNAPSHOT]", "[-U] [-q] [--object OBJDEF] FILENAME"],
        options: [
            .init(.quiet, "q", "quiet", help: "say nothing but what was asked for"),
            .format(.format),
            .imageOptions(.imageOptions),
            .forceShare(.forceShare),
            .init(.list, "l", "list", help: "list the snapshots (the default)"),
            .init(.create, "c", "create", value: "SNAPSHOT", help: "make a snapshot of this name"),
            .init(.apply, "a", "apply", value: "SNAPSHOT", help: "the disk becomes what it was at this snapshot (an ID or a name)"),
            .init(.delete, "d", "delete", value: "SNAPSHOT", help: "delete the first snapshot of this name"),
            .object(.object),
        ],
        operands: [.init("FILENAME", help: "the image")])

    private enum Action { case list, create(String), apply(String), delete(String) }

    static func run(_ arguments: ParsedArguments<Key>, _ context: CommandContext) async throws(ToolFailure) -> Int32 {
        let objects = try UserObjects.make(arguments.all(.object))
        var chosen: Action?
        for option in arguments.occurrences {
            let value = option.value ?? ""
            let action: Action
            switch option.key {
            case .list: action = .list
            case .create: action = .create(value)
            case .apply: action = .apply(value)
            case .delete: action = .delete(value)
            case .help, .quiet, .format, .imageOptions, .forceShare, .object: continue
            }
            if chosen != nil { throw context.usageFailure("Cannot mix '-l', '-a', '-c', '-d'") }
            chosen = action
        }
        let name = try context.oneImageName(arguments.operands)
        let named = try arguments.image(name)
        let session = ImageSession(context: context.ioContext, objects: objects)
        let action = chosen ?? .list
        var settings = ImageSettings()
        if case .list = action { settings.isReadOnly = true } else { settings.isReadOnly = false }
        settings.unmaps = !settings.isReadOnly
        settings.forceShare = arguments.contains(.forceShare)
        let image = try await session.open(named, settings)
        if !settings.isReadOnly { Interruption.leaves("the snapshots of '\(name)' may not have changed: list them") }
        defer { Interruption.leavesNothing() }
        let progress = ProgressReporter(arguments.contains(.quiet) ? .silent : .whenItTakesLong)
        try await session.closing(progress) { () async throws(ToolFailure) in
            // How far it is nobody knows: all of it comes into force at once.
            try await progress.watching(on: context.ioContext, { (0, 1) }) { () async throws(ToolFailure) in try await run(action, on: image, in: session) }
        }
        return 0
    }

    private static func run(_ action: Action, on image: OpenImage, in session: ImageSession) async throws(ToolFailure) {
        let name = image.node.name
        switch action {
        case .list:
            do throws(BlockError) { try await list(image.node) } catch { throw ToolFailure(nil, error) }
            return
        case .create, .apply, .delete:
            // Applying changes the size, which we would insist on keeping.
            await session.graph.release(image.backend)
        }
        switch action {
        case .list: break
        case .create(let snapshot):
            let context = "Could not create snapshot '\(snapshot)'"
            guard image.node.snapshotting != nil else { throw ToolFailure("\(context): \(BlockError.text(ofErrno: BlockError(.unsupported, "").errno))") }
            var moment = SnapshotMoment(.now)
            moment.instructionCount = 0
            do throws(BlockError) { _ = try await session.graph.createSnapshot(on: name, named: snapshot, moment: moment) } catch { throw ToolFailure(context, error) }
        case .apply(let snapshot):
            let context = "Could not apply snapshot '\(snapshot)'"
            guard let snapshotting = image.node.snapshotting else { throw ToolFailure("\(context): Block driver does not support snapshots") }
            do throws(BlockError) {
                // Before anything is looked for, as QEMU says it.
                if !image.node.bitmaps.all.isEmpty { throw BlockError(.permissionConflict, "Device has active dirty bitmaps") }
                guard let selector = try await SnapshotChoice.byIDOrName(snapshot, in: snapshotting) else {
                    throw BlockError(errno: BlockError(.notFound, "").errno, "Failed to load snapshot")
                }
                try await session.graph.applySnapshot(on: name, selector)
            } catch { throw ToolFailure(context, error) }
        case .delete(let snapshot):
            let context = "Could not delete snapshot '\(snapshot)'"
            do throws(BlockError) {
                guard let snapshotting = image.node.snapshotting, let found = try await snapshotting.listSnapshots().first(where: { $0.name == snapshot }) else {
                    throw BlockError(.notFound, "snapshot not found")
                }
                _ = try await session.graph.deleteSnapshot(on: name, SnapshotSelector(id: found.id, name: found.name))
            } catch { throw ToolFailure(context, error) }
        }
    }

    private static func list(_ node: BlockNode) async throws(BlockError) {
        let snapshots = try await node.snapshotting?.listSnapshots() ?? []
        if snapshots.isEmpty { return }
        let lines = ["Snapshot list:", SnapshotInfo.header] + snapshots.map { SnapshotInfo($0).line }
        guard StandardStreams.print(lines.map { "\($0)\n" }.joined()) else { throw BlockError(.io, "Could not write to standard output") }
    }
}
